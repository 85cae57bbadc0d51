//! One replica as a process of its own, and what a test asks it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what anything here takes.
pub(crate) const HANG: Duration = Duration::from_secs(60);
/// What tokens are for.
pub(crate) const SERVICE: &str = "registry.test";

/// The usual rules: everything in `alice/`, everybody reads `public/`.
pub(crate) const RULES: &str = r#"
[[access.rules]]
subject = "user:alice"
repositories = ["alice/**"]
actions = ["*"]
[[access.rules]]
subject = "authenticated"
repositories = ["shared/**"]
actions = ["pull", "push"]
[[access.rules]]
subject = "anonymous"
repositories = ["public/**"]
actions = ["pull"]
"#;

/// A line of an htpasswd file, at the lowest cost.
pub(crate) fn line(user: &str, password: &str) -> String {
    format!("{user}:{}\n", hash(password))
}

pub(crate) fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// What a replica is started with.
pub(crate) struct Setup {
    /// Keys of `[access]` beside `htpasswd` and `service`, then its tables.
    pub(crate) access: String,
    /// The file of users.
    pub(crate) htpasswd: String,
    pub(crate) log_level: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            access: RULES.to_owned(),
            htpasswd: line("alice", "wonderland") + &line("bob", "builder"),
            log_level: "info",
        }
    }
}

impl Setup {
    /// As text of the file in that folder.
    pub(crate) fn config(&self, folder: &Folder) -> String {
        let Folder { dir, registry, peer, ops } = folder;
        format!(
            "[node]\nname = \"one\"\ndata_dir = {:?}\n[registry]\nlisten = \"{registry}\"\n\
             [peer]\nlisten = \"{peer}\"\n[ops]\nlisten = \"{ops}\"\n\
             [log]\nformat = \"json\"\nlevel = {:?}\n\
             [access]\nhtpasswd = {:?}\nservice = \"{SERVICE}\"\n{}",
            dir.path().join("data"),
            self.log_level,
            dir.path().join("htpasswd"),
            self.access
        )
    }
}

/// Where a replica lives.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
    pub(crate) registry: String,
    peer: String,
    ops: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let sockets: [_; 3] =
            std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [registry, peer, ops] = sockets.map(|socket| socket.local_addr().unwrap().to_string());
        Self { dir: TempDir::new().unwrap(), registry, peer, ops }
    }

    /// Writes the files, each in one step, as an operator's tool does.
    pub(crate) fn write(&self, setup: &Setup) {
        self.replace("htpasswd", &setup.htpasswd);
        self.replace("tercet.toml", &setup.config(self));
    }

    pub(crate) fn replace(&self, name: &str, content: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TERCET_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--exit-with-parent", "--config"]).arg(self.path("tercet.toml"));
        command
    }
}

pub(crate) struct Replica {
    child: Child,
    pub(crate) folder: Folder,
    http: reqwest::Client,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replica {
    /// A replica that is ready and has its first key for tokens.
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = Folder::new();
        folder.write(&setup);
        let log = File::create(folder.path("log")).unwrap();
        let mut command = folder.command();
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(HANG)
            .build()
            .unwrap();
        let replica = Self { child, folder, http };
        let signs = async || {
            replica.get("/token").send().await.is_ok_and(|response| response.status() == 200)
        };
        replica.wait("a token", signs).await;
        replica
    }

    /// Looks again and again until it is so.
    pub(crate) async fn wait(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < HANG, "never: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a change of the files has been used for the `count`th time.
    pub(crate) async fn reloaded(&self, count: usize) {
        let line = "access control reloaded";
        self.wait(line, async || self.log().matches(line).count() >= count).await;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path("log")).unwrap()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.folder.registry);
        self.http.request(method.parse().unwrap(), url)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    /// `/v2/` with a name and a password.
    pub(crate) async fn log_in(&self, user: &str, password: &str) -> Answer {
        answer(self.get("/v2/").basic_auth(user, Some(password))).await
    }

    /// `/v2/` with a token.
    pub(crate) async fn log_in_with(&self, token: &str) -> Answer {
        answer(self.get("/v2/").bearer_auth(token)).await
    }

    /// A token for somebody, with these scopes.
    pub(crate) async fn token(&self, user: &str, password: &str, scopes: &[&str]) -> String {
        let mut query: String = format!("/token?service={SERVICE}&account={user}");
        for scope in scopes {
            query.push_str(&format!("&scope={}", scope.replace(':', "%3A")));
        }
        let answer = answer(self.get(&query).basic_auth(user, Some(password))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// Opens an upload session: what a push begins with.
    pub(crate) async fn push(&self, repository: &str, token: &str) -> Answer {
        let path = format!("/v2/{repository}/blobs/uploads/");
        answer(self.request("POST", &path).bearer_auth(token)).await
    }

    /// Lists tags: what needs the right to pull. Somebody who may not gets 401 or 403, somebody who
    /// may 404 in a repository that does not exist.
    pub(crate) async fn pull(&self, repository: &str, token: &str) -> Answer {
        answer(self.get(&format!("/v2/{repository}/tags/list")).bearer_auth(token)).await
    }

    /// The value of a metric with that name and those labels; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.folder.ops);
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) challenge: String,
    pub(crate) retry_after: Option<u64>,
    pub(crate) cache_control: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    Answer {
        status: response.status(),
        challenge: header("www-authenticate"),
        retry_after: header("retry-after").parse().ok(),
        cache_control: header("cache-control"),
        body: response.text().await.unwrap(),
    }
}
