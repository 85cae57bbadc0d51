//! One replica as a process of its own, its users, and a client that hides nothing.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tercet_storage::{Algorithm, Digest};

/// Far beyond what anything here takes.
pub(crate) const HANG: Duration = Duration::from_secs(60);
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Anonymous,
    /// A user whose password is the name, backwards.
    User(&'static str),
    /// A user with this password.
    Password(&'static str, &'static str),
}

pub(crate) fn password(user: &str) -> String {
    user.chars().rev().collect()
}

/// A line of an htpasswd file, at the lowest cost.
pub(crate) fn htpasswd_line(user: &str) -> String {
    format!("{user}:{}\n", bcrypt::hash(password(user), 4).unwrap())
}

/// One of `[[access.rules]]`.
pub(crate) fn rule(subject: &str, repositories: &[&str], actions: &[&str]) -> String {
    format!(
        "[[access.rules]]\nsubject = {subject:?}\nrepositories = {repositories:?}\n\
         actions = {actions:?}\n"
    )
}

pub(crate) struct Replica {
    child: Child,
    pub(crate) dir: TempDir,
    pub(crate) registry: String,
    http: reqwest::Client,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replica {
    /// A replica with these users and rules, ready for work.
    pub(crate) async fn start(users: &[&str], rules: &[String]) -> Self {
        let dir = TempDir::new().unwrap();
        let [registry, peer, ops] = free_addresses();
        let lines: String = users.iter().map(|user| htpasswd_line(user)).collect();
        std::fs::write(dir.path().join("htpasswd"), lines).unwrap();
        let users = if users.is_empty() {
            String::new()
        } else {
            format!("htpasswd = {:?}", dir.path().join("htpasswd"))
        };
        let config = format!(
            "[node]\nname = \"one\"\ndata_dir = {:?}\n[registry]\nlisten = \"{registry}\"\n\
             [peer]\nlisten = \"{peer}\"\n[ops]\nlisten = \"{ops}\"\n[log]\nformat = \"json\"\n\
             level = \"info,tercet=trace\"\n\
             [access]\n{users}\n{}",
            dir.path().join("data"),
            rules.concat()
        );
        let file = dir.path().join("tercet.toml");
        std::fs::write(&file, config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = tercet()
            .args(["serve", "--exit-with-parent", "--config"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(HANG)
            .build()
            .unwrap();
        let mut replica = Self { child, dir, registry: format!("http://{registry}"), http };
        replica.wait_ready(&format!("http://{ops}/readyz")).await;
        replica
    }

    async fn wait_ready(&mut self, readyz: &str) {
        let began = Instant::now();
        loop {
            let answer = self.http.get(readyz).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "it has ended:\n{}", self.log());
            assert!(began.elapsed() < HANG, "not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `host:port` of the registry listener.
    pub(crate) fn host(&self) -> &str {
        self.registry.strip_prefix("http://").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Lines of the audit log, once there are at least `count`.
    pub(crate) async fn audit(&self, count: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let lines: Vec<Value> = self
                .log()
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .filter(|line| line["target"] == "tercet::audit")
                .collect();
            if lines.len() >= count {
                return lines;
            }
            assert!(began.elapsed() < HANG, "{} of {count}: {lines:#?}", lines.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Changes a file of the replica's folder in one step, as an operator's tool does.
    pub(crate) fn replace(&self, name: &str, content: &str) {
        let new = self.dir.path().join(format!("{name}.new"));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.dir.path().join(name)).unwrap();
    }

    pub(crate) fn config_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("tercet.toml")).unwrap()
    }

    pub(crate) fn request(&self, who: Who, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", self.registry));
        match who {
            Who::Anonymous => request,
            Who::User(user) => request.basic_auth(user, Some(password(user))),
            Who::Password(user, password) => request.basic_auth(user, Some(password)),
        }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap() }
    }

    /// A request without a body.
    pub(crate) async fn call(&self, who: Who, method: &str, path: &str) -> Answer {
        self.send(self.request(who, method, path)).await
    }

    /// Opens an upload session; its path.
    pub(crate) async fn open_upload(&self, who: Who, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.call(who, "POST", &path).await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "{opened:?}");
        opened.header("location").to_owned()
    }

    pub(crate) async fn push_blob(&self, who: Who, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let pushed = self.send(self.request(who, "POST", &path).body(bytes.to_vec())).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{pushed:?}");
        digest
    }

    pub(crate) async fn put_manifest(
        &self,
        who: Who,
        repository: &str,
        reference: &str,
        manifest: &Value,
    ) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.request(who, "PUT", &path).header("content-type", OCI_MANIFEST);
        self.send(request.body(manifest.to_string())).await
    }

    /// An image of one layer; the digests of its manifest and its layer.
    pub(crate) async fn push_image(
        &self,
        who: Who,
        repository: &str,
        tag: &str,
        layer: &[u8],
    ) -> (Digest, Digest) {
        let config = self.push_blob(who, repository, b"{}").await;
        let digest = self.push_blob(who, repository, layer).await;
        let manifest = image(&config, &digest, layer.len());
        let pushed = self.put_manifest(who, repository, tag, &manifest).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{pushed:?}");
        (Digest::of(Algorithm::Sha256, manifest.to_string().as_bytes()), digest)
    }

    /// A bearer token with this scope, from the replica's own token endpoint. The leader of a new cluster
    /// makes the key for it a moment after the start.
    pub(crate) async fn token(&self, who: Who, scopes: &[&str]) -> Answer {
        let mut path = "/token?service=tercet".to_owned();
        for scope in scopes {
            path.push_str(&format!("&scope={scope}"));
        }
        let began = Instant::now();
        loop {
            let answer = self.call(who, "GET", &path).await;
            if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
            assert!(began.elapsed() < HANG, "no token: {answer:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A request with a token in place of a password.
    pub(crate) fn with_token(
        &self,
        token: &str,
        method: &str,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.request(Who::Anonymous, method, path).bearer_auth(token)
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Status, and the code of the OCI error body.
    pub(crate) fn refused(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }

    /// The token of a token endpoint's answer.
    pub(crate) fn token(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()["token"].as_str().unwrap().to_owned()
    }
}

/// An image manifest.
pub(crate) fn image(config: &Digest, layer: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size }],
    })
}

/// The binary, without this process's settings.
pub(crate) fn tercet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TERCET_") {
            command.env_remove(name);
        }
    }
    command
}

/// What `tercet config check` says about a file: exit code and standard error.
pub(crate) fn config_check(file: &Path) -> (Option<i32>, String) {
    let checked = tercet().args(["config", "check", "--config"]).arg(file).output().unwrap();
    (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
}

/// Three ports that were free a moment ago.
fn free_addresses() -> [String; 3] {
    let sockets: [_; 3] =
        std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().to_string())
}
