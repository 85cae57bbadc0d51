//! Tokens that replicas have issued by clocks of their own, and what each replica has to say to each of them.
//!
//! A token carries the time of its issuer. What another replica says to it follows from that, from its own clock and from
//! the leeway: it takes the token, or answers `401` with a challenge that leads the client to a token of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use reqwest::Method;

use super::{
    Run,
    run::{HEAL_DEADLINE, again},
};
use crate::{
    client::{Answer, RegistryClient},
    content::Blob,
    not_shown::ensure_shown,
};

/// What the replicas' `access.token_seconds` has to be: short, so that tokens end within a full run.
pub(super) const LIFE_S: i64 = 30;
/// By how much two clocks may differ before anybody notices, as the page on log-ins says.
const LEEWAY_S: i64 = 60;
/// So near to a limit either answer is good: a clock is read, and then the request travels.
const EDGE_S: i64 = 10;
const PATIENCE: Duration = Duration::from_secs(8);
const REPOSITORY: &str = "clock/tokens";

/// All that are tried, and the clocks by which they are judged.
#[derive(Debug)]
pub(super) struct Tokens {
    /// What they allow to read; every replica has it.
    path: String,
    /// How far ahead of the right time each replica's clock is, in seconds.
    ahead_s: Vec<i64>,
    /// The oldest first. One of each replica, from before the first fault, is never dropped: these end by age alone.
    all: Vec<Token>,
    judged: u64,
    /// Refusals in which no clock was wrong: the token's time was over.
    outlived: u64,
}

#[derive(Debug)]
struct Token {
    text: String,
    issuer: usize,
    /// How far ahead its issuer's clock was.
    ahead_s: i64,
    /// By that clock, in seconds since the Unix epoch.
    issued_s: i64,
}

/// What a replica has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    FromTheFuture,
    PastItsEnd,
    /// Too near to a limit.
    Either,
}

/// What one replica has said to all of them.
#[derive(Debug, Default)]
struct Said {
    judged: u64,
    future: u64,
    past: u64,
    outlived: u64,
}

impl Tokens {
    /// The first ones, by right clocks.
    pub(super) async fn start(run: &mut Run) -> Result<Self> {
        let blob = Blob::random(run.seed, 4 << 10);
        run.push_blob(0, REPOSITORY, &blob).await?;
        let cluster = run.cluster()?;
        for index in 0..cluster.len() {
            cluster.wait_held(index, &blob.digest, HEAL_DEADLINE).await?;
        }
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let ahead_s = vec![0; cluster.len()];
        let mut tokens = Self { path, ahead_s, all: Vec::new(), judged: 0, outlived: 0 };
        tokens.judge(run).await?;
        Ok(tokens)
    }

    /// A replica's clock is so far ahead from now on.
    pub(super) fn clock_is(&mut self, index: usize, ahead_s: i64) {
        if let Some(ahead) = self.ahead_s.get_mut(index) {
            *ahead = ahead_s;
        }
    }

    /// Every replica issues one more, and is asked about all there are. Fails where one says what it must not say.
    pub(super) async fn judge(&mut self, run: &mut Run) -> Result<()> {
        self.issue(run).await?;
        let cluster = run.cluster()?;
        let clients = (0..cluster.len())
            // New connections: by each of them the certificate is judged again.
            .map(|index| Ok(cluster.client_as(index, None)?.patient_for(PATIENCE)))
            .collect::<Result<Vec<_>>>()?;
        let asked = clients.iter().enumerate().map(|(index, client)| self.ask(index, client));
        let mut total = Said::default();
        for said in try_join_all(asked).await? {
            total.add(&said);
        }
        for (kind, count) in
            [("token from the future", total.future), ("token past its end", total.past)]
        {
            if count > 0 {
                run.faults.injected(kind, &format!("refused {count} times"));
            }
        }
        self.judged += total.judged;
        self.outlived += total.outlived;
        run.figure("tokens judged", self.judged);
        run.figure("tokens refused for their age alone", self.outlived);
        Ok(())
    }

    /// Fails unless the first tokens have ended by now, and were refused by replicas with right clocks.
    pub(super) fn have_ended(&self) -> Result<()> {
        ensure_shown!(self.outlived > 0, "no token was old enough to be refused for that alone");
        Ok(())
    }

    async fn issue(&mut self, run: &mut Run) -> Result<()> {
        let kept = run.of(9, 60);
        let cluster = run.cluster()?;
        let first = self.ahead_s.len();
        for (issuer, ahead_s) in self.ahead_s.iter().copied().enumerate() {
            let client = cluster.client(issuer)?.patient_for(PATIENCE);
            let text = again("a token is issued", || token_of(&client)).await?;
            self.all.push(Token { text, issuer, ahead_s, issued_s: now_s()? + ahead_s });
        }
        let surplus = self.all.len().saturating_sub(first + kept);
        self.all.drain(first..first + surplus);
        Ok(())
    }

    /// Shows all tokens to one replica.
    async fn ask(&self, index: usize, client: &RegistryClient) -> Result<Said> {
        let ahead_s = self.ahead_s.get(index).copied().unwrap_or_default();
        let mut said = Said { judged: self.all.len() as u64, ..Said::default() };
        for token in &self.all {
            let answer = again("a token is judged", || self.show(client, token)).await?;
            let taken = taken(client, &answer).with_context(|| {
                format!("replica {index}, {ahead_s:+} s off, to a {}", token.describe())
            })?;
            let wanted = token.verdict(now_s()? + ahead_s);
            ensure!(
                wanted == Verdict::Either || taken == (wanted == Verdict::Taken),
                "replica {index}, {ahead_s:+} s off, answered {} to a {}: wanted {wanted:?}",
                answer.status,
                token.describe()
            );
            match wanted {
                Verdict::FromTheFuture => said.future += 1,
                Verdict::PastItsEnd => said.past += 1,
                Verdict::Taken | Verdict::Either => {}
            }
            if wanted == Verdict::PastItsEnd && (ahead_s, token.ahead_s) == (0, 0) {
                said.outlived += 1;
            }
        }
        Ok(said)
    }

    async fn show(&self, client: &RegistryClient, token: &Token) -> Result<Answer> {
        client.send(client.request(Method::HEAD, &self.path)?.bearer_auth(&token.text)).await
    }
}

impl Token {
    /// What a replica says whose clock shows `clock_s`.
    fn verdict(&self, clock_s: i64) -> Verdict {
        let age_s = clock_s - self.issued_s;
        let near = |limit: i64| (age_s - limit).abs() <= EDGE_S;
        if near(-LEEWAY_S) || near(LIFE_S + LEEWAY_S) {
            Verdict::Either
        } else if age_s < -LEEWAY_S {
            Verdict::FromTheFuture
        } else if age_s > LIFE_S + LEEWAY_S {
            Verdict::PastItsEnd
        } else {
            Verdict::Taken
        }
    }

    /// Without the token itself.
    fn describe(&self) -> String {
        let Self { issuer, ahead_s, issued_s, .. } = self;
        format!("token of replica {issuer} by a clock {ahead_s:+} s off, which showed {issued_s}")
    }
}

impl Said {
    fn add(&mut self, other: &Self) {
        self.judged += other.judged;
        self.future += other.future;
        self.past += other.past;
        self.outlived += other.outlived;
    }
}

/// As a client that follows the challenge: the password goes to `/token`, on the registry's own port.
async fn token_of(client: &RegistryClient) -> Result<String> {
    let path = format!("/token?service=tercet&scope=repository:{REPOSITORY}:pull");
    let answer = client.get(&path).await?.expect(200)?;
    let body = answer.json()?;
    let life = body.pointer("/expires_in").and_then(serde_json::Value::as_i64);
    ensure!(life == Some(LIFE_S), "a token lives for {life:?} s instead of {LIFE_S}");
    let token = body.pointer("/token").and_then(serde_json::Value::as_str);
    Ok(token.context("an answer without a token")?.to_owned())
}

/// Whether a token was taken. A refusal has to lead the client to another one; anything else is an error.
fn taken(client: &RegistryClient, answer: &Answer) -> Result<bool> {
    match answer.status {
        200 => Ok(true),
        401 => {
            let challenge = answer.need_header("www-authenticate")?;
            let realm = format!("Bearer realm=\"{}/token\"", client.base());
            let scope = format!("scope=\"repository:{REPOSITORY}:pull\"");
            for part in [realm.as_str(), scope.as_str(), "error=\"invalid_token\""] {
                ensure!(challenge.contains(part), "no {part} in the challenge {challenge}");
            }
            Ok(false)
        }
        _ => bail!("neither taken nor refused: {}", answer.describe()),
    }
}

fn now_s() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the machine's clock")?;
    Ok(i64::try_from(now.as_secs())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_judged_by_its_age_and_the_leeway() {
        let token = Token { text: String::new(), issuer: 0, ahead_s: 0, issued_s: 10_000 };
        for (age_s, verdict) in [
            (-3_600, Verdict::FromTheFuture),
            (-75, Verdict::FromTheFuture),
            (-60, Verdict::Either),
            (-30, Verdict::Taken),
            (0, Verdict::Taken),
            (75, Verdict::Taken),
            (90, Verdict::Either),
            (105, Verdict::PastItsEnd),
            (3_600, Verdict::PastItsEnd),
        ] {
            assert_eq!(token.verdict(10_000 + age_s), verdict, "{age_s} s");
        }
    }
}
