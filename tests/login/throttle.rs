//! Guessing is slowed. The pauses themselves are unit tests of `src/auth/throttle.rs`.

use crate::replica::{Replica, Setup};

#[tokio::test]
async fn after_a_few_failures_others_wait_and_who_was_let_in_before_does_not() {
    let replica = Replica::start(Setup::default()).await;
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);
    let mut slowed = None;
    for guess in 0..50 {
        let answer = replica.log_in(&format!("user{guess}"), "guess").await;
        if answer.status == 429 {
            slowed = Some((guess, answer));
            break;
        }
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let (guesses, answer) = slowed.expect("nothing slows it");
    assert!(guesses >= 5, "{guesses} failures are too few");
    assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
    assert_eq!(answer.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    // More guesses, also at the other door, mean a longer pause.
    for guess in 0..20 {
        let _ = replica.log_in(&format!("user{guess}"), "guess").await;
    }
    let form = replica.request("POST", "/token").body("grant_type=password&username=x&password=y");
    let token = crate::replica::answer(form).await;
    assert!(matches!(token.status.as_u16(), 401 | 429), "{token:?}");
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200, "remembered");
    // Whose password was not shown here before waits a little, and is let in.
    replica.wait("bob's turn", async || replica.log_in("bob", "builder").await.status == 200).await;
    let throttled = "tercet_logins_total{method=\"basic\",result=\"throttled\"}";
    assert!(replica.metric(throttled).await >= 1);
}
