//! Robot accounts: their names, and their end. That it comes at the millisecond is a unit test, and
//! `members.rs` has one with a clock.

use crate::replica::{RULES, Replica, Setup, answer, hash};

fn robot(name: &str, secret: &str, expires: &str) -> String {
    let secret = hash(secret);
    format!(
        "[[access.robots]]\nname = {name:?}\nsecret_bcrypt = {secret:?}\nexpires = {expires:?}\n"
    )
}

#[tokio::test]
async fn a_robot_logs_in_under_each_of_its_names_until_it_expires() {
    let (future, past) = ("2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z");
    let ends = robot("brief", "brief", future);
    let robots =
        format!("{RULES}{}{ends}{}", robot("ci", "se:cret", future), robot("past", "past", past));
    let mut setup = Setup { access: robots, ..Setup::default() };
    let replica = Replica::start(Setup { access: setup.access.clone(), ..Setup::default() }).await;
    for name in ["robot:ci", "robot$ci"] {
        assert_eq!(replica.log_in(name, "se:cret").await.status, 200, "{name}");
    }
    assert_eq!(replica.log_in("ci", "se:cret").await.status, 401, "a robot is no user");
    assert_eq!(replica.log_in("robot:past", "past").await.status, 401);
    let form = "grant_type=password&username=robot%3Aci&password=se%3Acret";
    assert_eq!(answer(replica.request("POST", "/token").body(form)).await.status, 200);

    assert_eq!(replica.log_in("robot:brief", "brief").await.status, 200);
    let token = replica.token("robot$brief", "brief", &["repository:shared/app:pull"]).await;
    assert_eq!(replica.pull("shared/app", &token).await.status, 404);
    // The secret was right a moment ago and the token is good for minutes: both end with the robot.
    setup.access = setup.access.replace(&ends, &ends.replace(future, past));
    replica.folder.replace("tercet.toml", &setup.config(&replica.folder));
    replica.reloaded(1).await;
    assert_eq!(replica.log_in("robot:brief", "brief").await.status, 401);
    assert_eq!(replica.pull("shared/app", &token).await.status, 401);
    assert_eq!(replica.log_in("robot:ci", "se:cret").await.status, 200);
}
