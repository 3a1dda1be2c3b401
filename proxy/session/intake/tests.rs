//! Clients of a proxy whose memory is short.

use super::*;
use crate::upstream::router::scripted::within_a_minute;

/// All of the memory for clients is taken.
fn short_of_memory() -> Clients {
    let clients = Clients::new(1024);
    clients.account(0, 1024);
    clients
}

async fn looks_again(intake: &mut Intake) {
    std::future::poll_fn(|cx| intake.poll(cx)).await;
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_reads_on_where_memory_is_short() {
    within_a_minute(async {
        let clients = short_of_memory();
        let (mut one, mut other) = (Intake::default(), Intake::default());
        assert!(other.may_read_on(SMALL - 1, &clients), "a small request is always read");
        assert!(one.may_read_on(SMALL, &clients));
        assert!(!other.may_read_on(SMALL, &clients) && other.is_awaited());
        // The request is whole.
        one.end_turn();
        looks_again(&mut other).await;
        assert!(!other.is_awaited() && other.may_read_on(SMALL, &clients));
        assert!(!one.may_read_on(SMALL, &clients), "the turn is another's now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_has_the_turn_and_sends_nothing_loses_it() {
    within_a_minute(async {
        let clients = short_of_memory();
        let (mut one, mut other) = (Intake::default(), Intake::default());
        assert!(one.may_read_on(SMALL, &clients));
        tokio::time::sleep(PATIENCE - LOOK).await;
        assert!(one.may_read_on(SMALL, &clients), "it sends");
        tokio::time::sleep(PATIENCE).await;
        assert!(one.may_read_on(SMALL, &clients), "it sent, since it was looked at");
        tokio::time::sleep(3 * PATIENCE).await;
        assert!(other.may_read_on(SMALL, &clients));
        assert!(!one.may_read_on(SMALL, &clients));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_read_on_once_there_is_room() {
    within_a_minute(async {
        let clients = short_of_memory();
        let (mut one, mut other) = (Intake::default(), Intake::default());
        assert!(one.may_read_on(SMALL, &clients) && !other.may_read_on(SMALL, &clients));
        clients.account(1024, 0);
        looks_again(&mut other).await;
        assert!(other.may_read_on(SMALL, &clients) && one.may_read_on(SMALL, &clients));
    })
    .await;
}
