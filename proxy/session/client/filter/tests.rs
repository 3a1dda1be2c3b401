//! Who is meant by CLIENT KILL and CLIENT LIST.

use super::*;
use crate::{
    session::caller::Caller,
    upstream::router::scripted::{Scripted, request, within_a_minute},
};

#[tokio::test(start_paused = true)]
async fn filters_say_who_is_meant_or_what_is_wrong_with_them() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        let (one, other) = (Caller::of(&nodes), Caller::of(&nodes));
        other.client.subscriptions[0].store(1, Relaxed);
        let users = HashSet::from(["default".to_owned()]);
        let facts = ServerFacts { dialect: one.dialect(), databases: 16, users };
        let meant = |options: &str| {
            let words = request(&format!("CLIENT KILL {options}"));
            let filter = Filter::parse(&words.as_request(), 2, &facts);
            filter.map(|filter| [&one, &other].map(|caller| filter.takes(&caller.client)))
        };
        let id = one.client.id;
        assert_eq!(meant(&format!("ID {id}")), Ok([true, false]));
        assert_eq!(meant("TYPE normal"), Ok([true, false]));
        assert_eq!(meant("TYPE pubsub"), Ok([false, true]));
        assert_eq!(meant("TYPE pubsub TYPE normal"), Ok([true, false]), "the last one counts");
        assert_eq!(meant(&format!("ID {id} TYPE pubsub")), Ok([false, false]), "all have to fit");
        assert_eq!(meant("USER default SKIPME no"), Ok([true, true]));
        for (options, error) in [
            ("USER nobody", "ERR No such user 'nobody'"),
            ("TYPE nosuch", "ERR Unknown client type 'nosuch'"),
            ("ID 0", says::CLIENT_ID),
            ("ID", says::SYNTAX),
            ("NOSUCH x", says::SYNTAX),
        ] {
            assert_eq!(meant(options), Err(error.into()), "{options}");
        }
    })
    .await;
}
