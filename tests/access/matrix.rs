//! Everybody against every route.

use reqwest::StatusCode;

use crate::support::{Answer, Replica, Who, rule};

/// What a request needs, and the status of the one who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Pull,
    Push,
    Delete,
}

const EVERYBODY: [(Who, &[Needs]); 6] = [
    (Who::Anonymous, &[]),
    (Who::User("other"), &[]),
    (Who::User("reader"), &[Needs::Pull]),
    (Who::User("writer"), &[Needs::Pull, Needs::Push]),
    (Who::User("deleter"), &[Needs::Pull, Needs::Delete]),
    (Who::User("owner"), &[Needs::Pull, Needs::Push, Needs::Delete]),
];

async fn replica() -> Replica {
    let rules = [
        rule("anonymous", &["public/**"], &["pull"]),
        rule("user:other", &["other/**", "public/**"], &["*"]),
        rule("user:reader", &["team/**"], &["pull"]),
        rule("user:writer", &["team/**"], &["pull", "push"]),
        rule("user:deleter", &["team/**"], &["pull", "delete"]),
        rule("user:owner", &["**"], &["*"]),
    ];
    Replica::start(&["other", "reader", "writer", "deleter", "owner"], &rules).await
}

/// Every route and method; `{blob}`, `{manifest}` and `{absent}` stand for digests, `{session}` for an upload
/// session of whoever asks, or of the owner if they cannot have one.
const REQUESTS: [(&str, &str, Needs, u16); 23] = [
    ("GET", "/v2/{name}/manifests/v1", Needs::Pull, 200),
    ("HEAD", "/v2/{name}/manifests/v1", Needs::Pull, 200),
    ("GET", "/v2/{name}/manifests/{manifest}", Needs::Pull, 200),
    ("HEAD", "/v2/{name}/manifests/{manifest}", Needs::Pull, 200),
    ("GET", "/v2/{name}/blobs/{blob}", Needs::Pull, 200),
    ("HEAD", "/v2/{name}/blobs/{blob}", Needs::Pull, 200),
    ("GET", "/v2/{name}/tags/list", Needs::Pull, 200),
    ("HEAD", "/v2/{name}/tags/list", Needs::Pull, 200),
    ("GET", "/v2/{name}/referrers/{manifest}", Needs::Pull, 200),
    ("HEAD", "/v2/{name}/referrers/{manifest}", Needs::Pull, 200),
    ("POST", "/v2/{name}/blobs/uploads/", Needs::Push, 202),
    ("POST", "/v2/{name}/blobs/uploads/?digest={blob}", Needs::Push, 201),
    ("POST", "/v2/{name}/blobs/uploads/?mount={blob}&from={name}", Needs::Push, 201),
    ("POST", "/v2/{name}/blobs/uploads/?mount={blob}", Needs::Push, 201),
    ("GET", "{session}", Needs::Push, 204),
    ("HEAD", "{session}", Needs::Push, 204),
    ("PATCH", "{session}", Needs::Push, 202),
    ("PUT", "{session}?digest={blob}", Needs::Push, 201),
    ("DELETE", "{session}", Needs::Push, 204),
    ("PUT", "/v2/{name}/manifests/v1", Needs::Push, 201),
    ("DELETE", "/v2/{name}/manifests/absent", Needs::Delete, 404),
    ("DELETE", "/v2/{name}/manifests/{absent}", Needs::Delete, 404),
    ("DELETE", "/v2/{name}/blobs/{absent}", Needs::Delete, 404),
];

const LAYER: &[u8] = b"the layer";

struct Content {
    name: &'static str,
    blob: String,
    manifest: String,
    manifest_text: String,
}

impl Content {
    async fn push(replica: &Replica, name: &'static str) -> Self {
        let owner = Who::User("owner");
        let (manifest, blob) = replica.push_image(owner, name, "v1", LAYER).await;
        let path = format!("/v2/{name}/manifests/v1");
        let text = replica.call(owner, "GET", &path).await.body;
        Self {
            name,
            blob: blob.to_string(),
            manifest: manifest.to_string(),
            manifest_text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }

    fn path(&self, template: &str, session: &str) -> String {
        template
            .replace("{session}", session)
            .replace("{name}", self.name)
            .replace("{blob}", &self.blob)
            .replace("{manifest}", &self.manifest)
            .replace("{absent}", &format!("sha256:{}", "0".repeat(64)))
    }

    async fn ask(&self, replica: &Replica, who: Who, method: &str, path: &str) -> Answer {
        self.send(replica, replica.request(who, method, path), method, path).await
    }

    /// With the body that the request needs.
    async fn send(
        &self,
        replica: &Replica,
        request: reqwest::RequestBuilder,
        method: &str,
        path: &str,
    ) -> Answer {
        let request = match method {
            "PUT" if path.contains("/manifests/") => request
                .header("content-type", crate::support::OCI_MANIFEST)
                .body(self.manifest_text.clone()),
            "POST" if path.contains("?digest=") => request.body(LAYER),
            "PUT" | "PATCH" => request.body(LAYER),
            _ => request,
        };
        replica.send(request).await
    }
}

/// Whose session somebody asks about: their own, or, if they can have none, the owner's.
async fn session(replica: &Replica, who: Who, may_push: bool, name: &str) -> String {
    let opener = if may_push { who } else { Who::User("owner") };
    replica.open_upload(opener, name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_what_the_rules_say_on_every_route() {
    let replica = replica().await;
    let content = Content::push(&replica, "team/app").await;
    for (who, rights) in EVERYBODY {
        for (method, template, needs, allowed) in REQUESTS {
            let may_push = rights.contains(&Needs::Push);
            let session = if template.contains("{session}") {
                session(&replica, who, may_push, "team/app").await
            } else {
                String::new()
            };
            let path = content.path(template, &session);
            let answer = content.ask(&replica, who, method, &path).await;
            let wanted = match who {
                _ if rights.contains(&needs) => allowed,
                Who::Anonymous => 401,
                _ => 403,
            };
            assert_eq!(answer.status, wanted, "{who:?} {method} {path}: {answer:?}");
            assert_eq!(
                answer.headers.contains_key("www-authenticate"),
                wanted == 401,
                "{answer:?}"
            );
        }
    }
}

/// The rights of a token are those of its holder: the same matrix with tokens whose scope is everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_allows_what_its_holder_may_do() {
    let replica = replica().await;
    let content = Content::push(&replica, "team/app").await;
    let scope = "repository:team/app:pull,push,delete";
    for (who, rights) in EVERYBODY {
        let token = replica.token(who, &[scope]).await.token();
        for (method, template, needs, allowed) in REQUESTS {
            let may_push = rights.contains(&Needs::Push);
            let session = if template.contains("{session}") {
                session(&replica, who, may_push, "team/app").await
            } else {
                String::new()
            };
            let path = content.path(template, &session);
            let request = replica.with_token(&token, method, &path);
            let answer = content.send(&replica, request, method, &path).await;
            let wanted = match who {
                _ if rights.contains(&needs) => allowed,
                Who::Anonymous => 401,
                _ => 403,
            };
            assert_eq!(answer.status, wanted, "token of {who:?} {method} {path}: {answer:?}");
        }
    }
}

/// Denials say nothing about what there is: the same answer for what exists and what does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_the_same_whether_the_repository_exists_or_not() {
    let replica = replica().await;
    let content = Content::push(&replica, "team/app").await;
    let session = replica.open_upload(Who::User("owner"), "team/app").await;
    for who in [Who::Anonymous, Who::User("other")] {
        for (method, template, ..) in REQUESTS {
            let path = content.path(template, &session);
            let there = content.ask(&replica, who, method, &path).await;
            let absent = path.replace("team/app", "team/not-there");
            let not_there = content.ask(&replica, who, method, &absent).await;
            let text = |answer: &Answer| {
                let headers: Vec<String> = answer
                    .headers
                    .iter()
                    .filter(|(name, _)| *name != "date" && *name != "content-length")
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                    .collect();
                let body = String::from_utf8(answer.body.to_vec()).unwrap();
                format!("{} {headers:?} {body}", answer.status)
                    .replace("team/not-there", "team/app")
            };
            assert_eq!(text(&there), text(&not_there), "{who:?} {method} {path}");
        }
    }
}

/// A client that waits to be told to send is told no, and one that sends a gigabyte is not listened to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_refused_upload_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let replica = replica().await;
    for (expect, begin) in [("Expect: 100-continue\r\n", ""), ("", "the beginning")] {
        let mut stream = tokio::net::TcpStream::connect(replica.host()).await.unwrap();
        let request = format!(
            "POST /v2/team/app/blobs/uploads/?digest=sha256:{} HTTP/1.1\r\nHost: {}\r\n{expect}\
             Content-Length: 1073741824\r\n\r\n{begin}",
            "0".repeat(64),
            replica.host()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        let read = stream.read_exact(&mut answer);
        tokio::time::timeout(crate::support::HANG, read).await.unwrap().unwrap();
        assert_eq!(answer, b"HTTP/1.1 401");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_base_tells_who_has_to_log_in() {
    let replica = replica().await;
    let asked = replica.call(Who::Anonymous, "GET", "/v2/").await;
    assert_eq!(asked.refused(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(
        asked.header("www-authenticate"),
        format!("Bearer realm=\"{}/token\",service=\"tercet\"", replica.registry)
    );
    assert_eq!(asked.header("docker-distribution-api-version"), "registry/2.0");
    assert_eq!(replica.call(Who::User("other"), "GET", "/v2/").await.status, StatusCode::OK);
    let wrong = replica.call(Who::Password("other", "guess"), "GET", "/v2/").await;
    assert_eq!(wrong.refused(), (401, "UNAUTHORIZED".to_owned()));
    let nobody = replica.call(Who::Password("nobody", "guess"), "GET", "/v2/").await;
    assert_eq!(nobody.refused(), wrong.refused());
    assert_eq!(nobody.body, wrong.body, "a name that does not exist is not told apart");

    // Where nobody can log in, nobody is asked to.
    let replica = Replica::start(&[], &[rule("anonymous", &["**"], &["pull"])]).await;
    assert_eq!(replica.call(Who::Anonymous, "GET", "/v2/").await.status, StatusCode::OK);
    let refused = replica.call(Who::Anonymous, "POST", "/v2/a/blobs/uploads/").await;
    assert_eq!(refused.refused(), (403, "DENIED".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_rules_everything_is_open() {
    let replica = Replica::start(&[], &[]).await;
    let (manifest, _) = replica.push_image(Who::Anonymous, "a", "v1", LAYER).await;
    let path = format!("/v2/a/manifests/{manifest}");
    assert_eq!(replica.call(Who::Anonymous, "DELETE", &path).await.status, StatusCode::ACCEPTED);
    // Credentials that were meant for another registry do no harm.
    let who = Who::Password("somebody", "something");
    assert_eq!(replica.call(who, "GET", "/v2/").await.status, StatusCode::OK);
    replica.push_image(who, "a", "v1", LAYER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_says_what_to_ask_for() {
    let replica = replica().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (method, path, scope) in [
        ("GET", "/v2/team/app/tags/list".to_owned(), "repository:team/app:pull"),
        ("POST", "/v2/team/app/blobs/uploads/".to_owned(), "repository:team/app:pull,push"),
        ("DELETE", "/v2/team/app/manifests/v1".to_owned(), "repository:team/app:pull,delete"),
        ("GET", "/v2/_catalog?x".to_owned(), "registry:catalog:*"),
        (
            "POST",
            format!("/v2/team/app/blobs/uploads/?mount={digest}&from=team/base"),
            "repository:team/app:pull,push repository:team/base:pull",
        ),
    ] {
        let asked = replica.call(Who::Anonymous, method, &path).await;
        let wanted = format!(
            "Bearer realm=\"{}/token\",service=\"tercet\",scope=\"{scope}\"",
            replica.registry
        );
        if path.contains("_catalog") {
            // Anonymous may pull something here, so there is something to list.
            assert_eq!(asked.status, StatusCode::OK, "{asked:?}");
        } else {
            assert_eq!(asked.refused(), (401, "UNAUTHORIZED".to_owned()));
            assert_eq!(asked.header("www-authenticate"), wanted);
        }
    }
    // A token that is good and says too little, although the rules would allow more.
    let token = replica.token(Who::User("owner"), &["repository:team/app:pull"]).await.token();
    let small = replica.with_token(&token, "POST", "/v2/team/app/blobs/uploads/");
    let small = replica.send(small).await;
    assert_eq!(small.refused(), (401, "UNAUTHORIZED".to_owned()));
    let challenge = small.header("www-authenticate");
    assert!(
        challenge
            .ends_with(",scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""),
        "{challenge}"
    );
    let catalog = replica.send(replica.with_token(&token, "GET", "/v2/_catalog")).await;
    assert!(catalog.header("www-authenticate").contains("scope=\"registry:catalog:*\""));
    // One that is none.
    let forged = replica.send(replica.with_token("e30.e30.e30", "GET", "/v2/")).await;
    assert_eq!(forged.refused(), (401, "UNAUTHORIZED".to_owned()));
    let challenge = forged.header("www-authenticate");
    assert!(challenge.ends_with(",error=\"invalid_token\""), "{challenge}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_lists_what_may_be_pulled_and_its_pages_hide_the_rest() {
    let rules = [
        rule("anonymous", &["public/*"], &["pull"]),
        rule("user:reader", &["team/*", "**/shared"], &["pull"]),
        rule("user:writer", &["team/*"], &["push"]),
        rule("user:owner", &["**"], &["*"]),
    ];
    let replica = Replica::start(&["reader", "writer", "owner"], &rules).await;
    let names = [
        "a/shared",
        "b/secret",
        "public/one",
        "public/two",
        "team/a",
        "team/b",
        "team/c",
        "z/secret",
        "z/shared",
    ];
    for name in names {
        replica.push_image(Who::User("owner"), name, "v1", LAYER).await;
    }
    let everything = listed(&replica, Who::User("owner"), 4).await;
    assert_eq!(everything, names);
    for size in [1, 2, 3, 100] {
        let readable = listed(&replica, Who::User("reader"), size).await;
        let wanted =
            ["a/shared", "public/one", "public/two", "team/a", "team/b", "team/c", "z/shared"];
        assert_eq!(readable, wanted, "pages of {size}");
        let anonymous = listed(&replica, Who::Anonymous, size).await;
        assert_eq!(anonymous, ["public/one", "public/two"], "pages of {size}");
    }
    // To push is not to read.
    assert_eq!(listed(&replica, Who::User("writer"), 2).await, ["public/one", "public/two"]);
    let token = replica.token(Who::User("reader"), &["registry:catalog:*"]).await.token();
    let catalog = replica.send(replica.with_token(&token, "GET", "/v2/_catalog")).await;
    assert_eq!(catalog.json()["repositories"].as_array().unwrap().len(), 7);
}

/// Clients would say "nothing here" where they should say "log in".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_of_a_private_registry_asks_for_a_log_in() {
    let replica = Replica::start(&["owner"], &[rule("user:owner", &["**"], &["*"])]).await;
    let scope = "registry:catalog:*";
    let asked = replica.call(Who::Anonymous, "GET", "/v2/_catalog").await;
    assert_eq!(asked.refused(), (401, "UNAUTHORIZED".to_owned()));
    assert!(
        asked.header("www-authenticate").ends_with(&format!(",scope=\"{scope}\"")),
        "{asked:?}"
    );
    let token = replica.token(Who::Anonymous, &[scope]).await.token();
    let asked = replica.send(replica.with_token(&token, "GET", "/v2/_catalog")).await;
    assert_eq!(asked.refused(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(
        replica.call(Who::User("owner"), "GET", "/v2/_catalog").await.status,
        StatusCode::OK
    );
}

/// The whole list, page by page; no `Link` names what is not on a page.
async fn listed(replica: &Replica, who: Who, size: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut path = format!("/v2/_catalog?n={size}");
    loop {
        let page = replica.call(who, "GET", &path).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let names = page.json()["repositories"].as_array().unwrap().clone();
        assert!(names.len() <= size);
        all.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
        let Some(link) = page.headers.get("link") else { return all };
        let link = link.to_str().unwrap();
        let target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
        assert!(target.ends_with(&format!("last={}", all.last().unwrap())), "{target}");
        path = target.to_owned();
    }
}
