//! Files that do not do, at the start of a process.

use crate::authority::Authority;
use crate::process::Replica;

#[test]
fn an_expired_certificate_is_78_and_names_file_and_date() {
    let replica = Replica::new();
    Authority::new()
        .issue_with("old", |params| params.not_after = rcgen::date_time_ymd(2021, 2, 3))
        .write(replica.dir.path());
    for listener in ["registry", "ops", "webhook"] {
        let (code, error) = replica.fails(&replica.tls_section(listener));
        assert_eq!(code, Some(78), "{error}");
        let begin = format!("{listener}.tls.certificate: {}", replica.path("tls.crt").display());
        assert!(error.contains(&begin) && error.contains("expired on Feb  3"), "{error}");
    }
}

#[test]
fn a_key_of_another_pair_is_78_and_names_both_files() {
    let replica = Replica::new();
    let authority = Authority::new();
    authority.issue("one").write(replica.dir.path());
    std::fs::write(replica.path("tls.key"), authority.issue("two").key).unwrap();
    let (code, error) = replica.fails(&replica.tls_section("registry"));
    assert_eq!(code, Some(78), "{error}");
    let begin = format!("registry.tls.key: {}", replica.path("tls.key").display());
    let other = replica.path("tls.crt").display().to_string();
    assert!(error.contains(&begin) && error.contains(&other), "{error}");
}

#[test]
fn every_listener_with_a_problem_is_told() {
    let replica = Replica::new();
    let sections: String =
        ["registry", "ops", "webhook"].map(|listener| replica.tls_section(listener)).concat();
    let (code, error) = replica.fails(&sections);
    assert_eq!(code, Some(78), "{error}");
    assert_eq!(error.matches("there is no such file").count(), 3, "{error}");
}

#[test]
fn an_expired_certificate_of_a_replica_is_78_too() {
    let replica = Replica::new();
    let authority = Authority::new();
    authority
        .issue_with("old", |params| params.not_after = rcgen::date_time_ymd(2021, 2, 3))
        .write(replica.dir.path());
    let ca = authority.write(&replica.path("ca.pem"));
    let section = format!("{}ca = {ca:?}\n", replica.tls_section("peer"));
    let (code, error) = replica.fails(&section);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("peer.tls.certificate: ") && error.contains("expired on"), "{error}");
}
