//! Times and numbers as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in Unix time; 0 for one before its beginning.
pub fn unix_time(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time of day, in UTC: `14:02:11 UTC`.
pub fn time_of_day(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}

/// A length of time, for people: `340 ms`, `12 s`, `3 min`, `2 h`.
pub fn length(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// A whole number with its digits in groups: `12,400`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        let day = UNIX_EPOCH + Duration::from_secs(24 * 3600 + 14 * 3600 + 2 * 60 + 11);
        assert_eq!(time_of_day(day), "14:02:11 UTC");
        for (millis, text) in
            [(340, "340 ms"), (1000, "1 s"), (119_999, "119 s"), (125_000, "2 min"), (7_200_000, "2 h")]
        {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (12_400, "12,400"), (1_234_567, "1,234,567"), (-1000, "-1,000")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
