//! Users, robots and rules change without a restart; what is wrong changes nothing.

use crate::replica::{Replica, Setup, answer, line};

const FAILURES: &str = "tercet_access_reload_failures_total";

#[tokio::test]
async fn users_come_and_go_and_change_their_password_without_a_restart() {
    let replica = Replica::start(Setup::default()).await;
    let scope = ["repository:shared/app:pull"];
    let bobs = replica.token("bob", "builder", &scope).await;
    assert_eq!(replica.pull("shared/app", &bobs).await.status, 404);
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);
    let users = line("alice", "looking-glass") + &line("carol", "christmas");
    replica.folder.replace("htpasswd", &users);
    replica.reloaded(1).await;
    assert_eq!(replica.log_in("carol", "christmas").await.status, 200);
    // The old password was remembered as right, and bob has a good token: neither counts any more.
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 401);
    assert_eq!(replica.log_in("alice", "looking-glass").await.status, 200);
    assert_eq!(replica.log_in("bob", "builder").await.status, 401);
    assert_eq!(replica.pull("shared/app", &bobs).await.status, 401);
    assert_eq!(replica.metric(FAILURES).await, 0);
}

#[tokio::test]
async fn a_file_that_kubernetes_swaps_is_read_again() {
    use std::os::unix::fs::symlink;
    let replica = Replica::start(Setup::default()).await;
    let folder = &replica.folder;
    // As a Secret is mounted: the file is a link through a directory that is itself a link.
    for (number, password) in [(1, "one"), (2, "two")] {
        let (version, users) = (format!("v{number}"), line("alice", password));
        std::fs::create_dir(folder.path(&version)).unwrap();
        std::fs::write(folder.path(&version).join("htpasswd"), users).unwrap();
        symlink(folder.path(&version), folder.path("data.new")).unwrap();
        std::fs::rename(folder.path("data.new"), folder.path("..data")).unwrap();
        if number == 1 {
            symlink(folder.path("..data").join("htpasswd"), folder.path("link")).unwrap();
            std::fs::rename(folder.path("link"), folder.path("htpasswd")).unwrap();
        }
        let password = if number == 1 { "one" } else { "two" };
        let swapped = async || replica.log_in("alice", password).await.status == 200;
        replica.wait("the new password", swapped).await;
    }
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_is_told_once_and_counted() {
    let replica = Replica::start(Setup::default()).await;
    for wrong in ["alice\n", "alice:$apr1$salt$hash\n"] {
        let before = replica.metric(FAILURES).await;
        replica.folder.replace("htpasswd", &(line("carol", "christmas") + wrong));
        replica.wait("a failure", async || replica.metric(FAILURES).await == before + 1).await;
        assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);
        assert_eq!(replica.log_in("carol", "christmas").await.status, 401);
    }
    std::fs::remove_file(replica.folder.path("htpasswd")).unwrap();
    replica.wait("a failure", async || replica.metric(FAILURES).await == 3).await;
    assert_eq!(replica.log_in("bob", "builder").await.status, 200);
    let log = replica.log();
    let path = replica.folder.path("htpasswd");
    assert_eq!(log.matches(&format!("{}:2: a line is name:hash", path.display())).count(), 1);
    assert!(log.contains("the hash is MD5"), "{log}");
    replica.folder.replace("htpasswd", &line("carol", "christmas"));
    replica.reloaded(1).await;
    assert_eq!(replica.log_in("carol", "christmas").await.status, 200);
    assert_eq!(replica.metric(FAILURES).await, 3);
}

#[tokio::test]
async fn rules_and_robots_of_the_configuration_change_without_a_restart() {
    let replica = Replica::start(Setup::default()).await;
    let path = "/v2/new/app/blobs/uploads/";
    let push = || answer(replica.request("POST", path).basic_auth("bob", Some("builder")));
    assert_eq!(push().await.status, 403);
    let more = "[[access.rules]]\nsubject = \"user:bob\"\nrepositories = [\"new/*\"]\nactions = [\"push\"]\n";
    let robot = format!(
        "[[access.robots]]\nname = \"ci\"\nsecret_bcrypt = {:?}\n",
        crate::replica::hash("r0bot")
    );
    let mut setup = Setup::default();
    setup.access += &(more.to_owned() + &robot);
    replica.folder.replace("tercet.toml", &setup.config(&replica.folder));
    replica.wait("the new rule", async || push().await.status == 202).await;
    assert_eq!(replica.log_in("robot:ci", "r0bot").await.status, 200);

    // A mistake anywhere in the file, and a file that would open the registry, change nothing.
    let good = setup.config(&replica.folder);
    for wrong in [
        good.replace("[log]", "[logs]"),
        good.replace("\"push\"", "\"shove\""),
        Setup { access: String::new(), ..Setup::default() }.config(&replica.folder),
    ] {
        let before = replica.metric(FAILURES).await;
        replica.folder.replace("tercet.toml", &wrong);
        replica.wait("a failure", async || replica.metric(FAILURES).await == before + 1).await;
        assert_eq!(push().await.status, 202);
        assert_eq!(answer(replica.request("POST", path)).await.status, 401);
    }
    assert!(replica.log().contains("would let everybody do everything"));
    replica.folder.replace("tercet.toml", &Setup::default().config(&replica.folder));
    replica.wait("the rule is gone", async || push().await.status == 403).await;
    assert_eq!(replica.log_in("robot:ci", "r0bot").await.status, 401);
}

#[tokio::test]
async fn a_users_file_that_comes_after_the_configuration_that_names_it_is_used() {
    let replica = Replica::start(Setup::default()).await;
    let old = Setup::default().config(&replica.folder);
    let (path, other) = (replica.folder.path("htpasswd"), replica.folder.path("users"));
    let new = old.replace(&path.display().to_string(), &other.display().to_string());
    assert_ne!(old, new);
    replica.folder.replace("tercet.toml", &new);
    replica.wait("a failure", async || replica.metric(FAILURES).await == 1).await;
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);
    replica.folder.replace("users", &line("carol", "christmas"));
    let in_use = async || replica.log_in("carol", "christmas").await.status == 200;
    replica.wait("the file that came later", in_use).await;
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 401);
    assert_eq!(replica.metric(FAILURES).await, 1);
}
