//! What the proxy itself reads in a certificate: until when it is valid. All else is rustls' to judge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity (notAfter); `None` where this is no certificate.
pub fn valid_until(der: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = value(der, SEQUENCE)?;
    let (mut rest, _) = value(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // The serial number, the signature's algorithm, the issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (validity, _) = value(rest, SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (kind, text, _) = element(not_after)?;
    let seconds = seconds_since_1970(kind, std::str::from_utf8(text).ok()?)?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The tag of the first element in DER, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match usize::from(first) {
        short @ ..0x80 => (short, rest),
        long => {
            let count = (long & 0x7f).min(size_of::<usize>());
            let (digits, rest) = rest.split_at_checked(count)?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the first element, where it has this tag, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// `YYMMDDHHMMSSZ`, or with four digits for the year; a time before 1970 counts as 1970.
fn seconds_since_1970(kind: u8, text: &str) -> Option<u64> {
    let number = |text: &str, from: usize, count: usize| text.get(from..from + count)?.parse::<i64>().ok();
    let (year, at) = match kind {
        // RFC 5280: two digits from 50 on are of the last century.
        UTC_TIME => (number(text, 0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (number(text, 0, 4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(text, at + 2 * index, 2);
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(u64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (kind, text, seconds) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229235959Z", Some(1_709_251_199)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "2050", None),
            (UTC_TIME, "2402292359é9Z", None),
            (SEQUENCE, "240229235959Z", None),
        ] {
            assert_eq!(seconds_since_1970(kind, text), seconds, "{text}");
        }
    }

    #[test]
    fn a_certificate_s_end_is_found_and_nothing_else_is_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        made.not_after = rcgen::date_time_ymd(2049, 12, 31);
        let certificate = made.clone().self_signed(&key).unwrap();
        let until = |years| UNIX_EPOCH + Duration::from_secs(years);
        assert_eq!(valid_until(certificate.der()), Some(until(2_524_521_600)));
        made.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let certificate = made.self_signed(&key).unwrap();
        assert_eq!(valid_until(certificate.der()), Some(until(2_556_144_000)));
        for cut in 0..certificate.der().len() {
            assert_eq!(valid_until(&certificate.der()[..cut]), None);
        }
        assert_eq!(valid_until(b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
