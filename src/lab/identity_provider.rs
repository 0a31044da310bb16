//! A small identity provider: a discovery document, keys that rotate, tokens for whoever asks.
//!
//! It asks nobody for a password and checks nothing: it is the other end of the front door's checks.
//!
//! `GET /.well-known/openid-configuration` · `GET /keys` · `GET /token?user=&audience=&seconds=` ·
//! `POST /rotate?keep=true|false` · `POST /fault?kind=down|slow|huge|html|redirect|issuer|none` ·
//! `GET /counters`

mod keys;

pub use keys::Keys;
pub(crate) use keys::named_in;

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How a provider is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// Its host in URLs and in the claim `iss`; the address where this is not said.
    pub host: Option<String>,
    /// TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// The claim `aud` of tokens, unless somebody asks for another.
    pub audience: String,
    /// How long tokens are good, unless somebody asks for another time.
    pub lifetime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: None,
            tls: None,
            audience: "https://mail.contoso.test/".to_owned(),
            lifetime: Duration::from_secs(3600),
        }
    }
}

/// What a provider can do wrong, with documents and keys; tokens come all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Answers 503.
    Down,
    /// Does not answer.
    Slow,
    /// Sends a megabyte.
    Huge,
    /// Sends a page for people.
    Html,
    /// Sends elsewhere.
    Redirect,
    /// Says it is somebody else.
    Issuer,
}

impl std::str::FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "none" => Self::None,
            "down" => Self::Down,
            "slow" => Self::Slow,
            "huge" => Self::Huge,
            "html" => Self::Html,
            "redirect" => Self::Redirect,
            "issuer" => Self::Issuer,
            _ => bail!("no fault is called {word:?}"),
        })
    }
}

/// A running provider. Dropping it closes its port.
#[derive(Debug)]
pub struct IdentityProvider {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    issuer: String,
    keys: Keys,
    fault: Mutex<Fault>,
    asked: [AtomicU64; 3],
}

/// Places in [`Shared::asked`].
const DISCOVERY: usize = 0;
const KEYS: usize = 1;
const TOKENS: usize = 2;

impl IdentityProvider {
    /// Starts it.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn spawn(options: Options) -> Result<Self> {
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| options.listen.to_string())?;
        let address = listener.local_addr()?;
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let host = options.host.as_ref().map_or_else(
            || address.to_string(),
            |host| format!("{host}:{}", address.port()),
        );
        let shared = Arc::new(Shared {
            issuer: format!("{scheme}://{host}"),
            // Finding primes takes a while.
            keys: tokio::task::spawn_blocking(Keys::new).await??,
            options,
            fault: Mutex::default(),
            asked: Default::default(),
        });
        Ok(Self {
            serving: tokio::spawn(serve(listener, Arc::clone(&shared))),
            shared,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The claim `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Its keys, for those who check tokens themselves.
    pub fn keys(&self) -> Keys {
        self.shared.keys.clone()
    }

    /// A token for this user as it gives them to everybody.
    ///
    /// # Errors
    /// None that a key made here could cause.
    pub fn token(&self, user: &str) -> Result<String> {
        self.sign(&self.claims(user), &json!({}))
    }

    /// What such a token says.
    pub fn claims(&self, user: &str) -> Value {
        let options = &self.shared.options;
        self.shared
            .claims(user, &options.audience, options.lifetime.as_secs())
    }

    /// A token that says what the caller likes; see [`Keys::sign`].
    ///
    /// # Errors
    /// None that a key made here could cause.
    pub fn sign(&self, claims: &Value, header: &Value) -> Result<String> {
        self.shared.keys.sign(claims, header)
    }

    /// Does everything wrong that the fault says, until another one is named.
    pub fn fault(&self, fault: Fault) {
        *self.shared.fault.lock() = fault;
    }

    /// How often it was asked for its keys.
    pub fn keys_asked(&self) -> u64 {
        self.shared.count(KEYS)
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let acceptor = shared.options.tls.clone().map(TlsAcceptor::from);
    while let Ok((tcp, _)) = listener.accept().await {
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        // A broken connection is its client's business.
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => shared.converse(acceptor.accept(tcp).await?).await,
                None => shared.converse(tcp).await,
            }
        });
    }
}

/// An answer: status line, more header lines, type and body.
struct Reply(&'static str, &'static str, &'static str, String);

impl Reply {
    fn json(value: &Value) -> Self {
        Self("200 OK", "", "application/json", value.to_string())
    }
}

impl Shared {
    /// One request, one answer.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> Result<()> {
        let mut head = Vec::new();
        while memchr::memmem::find(&head, b"\r\n\r\n").is_none() && head.len() < HEAD_MAX {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head);
        let mut words = text.split([' ', '\r']);
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let reply = match self.obey(method, target) {
            Ok(Some(reply)) => reply,
            Ok(None) => std::future::pending().await,
            Err(problem) => {
                let problem = json!({ "problem": format!("{problem:#}") });
                Reply(
                    "400 Bad Request",
                    "",
                    "application/json",
                    problem.to_string(),
                )
            }
        };
        let Reply(status, more, kind, body) = reply;
        let answer = format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        Ok(stream.shutdown().await?)
    }

    /// Does what is asked; nothing where no answer is to come.
    fn obey(&self, method: &str, target: &str) -> Result<Option<Reply>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.replace("%40", "@"))
        };
        let needed = |name: &str| value(name).ok_or_else(|| anyhow!("{name} is missing"));
        Ok(Some(match (method, path) {
            ("GET", "/.well-known/openid-configuration") => {
                self.note(DISCOVERY);
                return self.or_fault(Reply::json(&self.discovery()));
            }
            ("GET", "/keys") => {
                self.note(KEYS);
                return self.or_fault(Reply::json(&self.keys.published()?));
            }
            ("GET" | "POST", "/token") => {
                self.note(TOKENS);
                let options = &self.options;
                let seconds = match value("seconds") {
                    Some(digits) => digits.parse().context("seconds")?,
                    None => options.lifetime.as_secs(),
                };
                let audience = value("audience").unwrap_or_else(|| options.audience.clone());
                let claims = self.claims(&needed("user")?, &audience, seconds);
                let token = self.keys.sign(&claims, &json!({}))?;
                Reply("200 OK", "", "text/plain", format!("{token}\n"))
            }
            ("POST", "/rotate") => {
                self.keys
                    .rotate(value("keep").as_deref() != Some("false"))?;
                Reply::json(&self.keys.published()?)
            }
            ("POST", "/fault") => {
                let kind = needed("kind")?;
                *self.fault.lock() = kind.parse()?;
                Reply::json(&json!({ "fault": kind }))
            }
            ("GET", "/counters") => Reply::json(&json!({
                "discovery": self.count(DISCOVERY),
                "keys": self.count(KEYS),
                "tokens": self.count(TOKENS),
            })),
            _ => bail!("no command {method} {path}"),
        }))
    }

    fn discovery(&self) -> Value {
        let issuer = match *self.fault.lock() {
            Fault::Issuer => "https://somebody.else.test",
            _ => &self.issuer,
        };
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{}/keys", self.issuer),
            "token_endpoint": format!("{}/token", self.issuer),
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    fn or_fault(&self, good: Reply) -> Result<Option<Reply>> {
        Ok(Some(match *self.fault.lock() {
            Fault::None | Fault::Issuer => good,
            Fault::Slow => return Ok(None),
            Fault::Down => Reply(
                "503 Service Unavailable",
                "",
                "text/plain",
                "busy".to_owned(),
            ),
            Fault::Huge => Reply("200 OK", "", "application/json", " ".repeat(1 << 20)),
            Fault::Html => Reply("200 OK", "", "text/html", "<html>Sign in</html>".to_owned()),
            Fault::Redirect => Reply(
                "302 Found",
                "Location: https://somebody.else.test/\r\n",
                "text/plain",
                String::new(),
            ),
        }))
    }

    fn claims(&self, user: &str, audience: &str, seconds: u64) -> Value {
        let now = crate::lab::unix_micros() / 1_000_000;
        json!({
            "iss": self.issuer,
            "aud": audience,
            "sub": crate::lab::hex(&crate::lab::digest(user.as_bytes())),
            "upn": user,
            "preferred_username": user,
            "scp": "MAPI.AccessAsUser.All",
            "appid": "mapigate-lab",
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
        })
    }

    fn note(&self, what: usize) {
        if let Some(count) = self.asked.get(what) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, what: usize) -> u64 {
        self.asked
            .get(what)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserName;

    async fn provider() -> IdentityProvider {
        IdentityProvider::spawn(Options::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_its_users_until_it_ends_or_its_key_goes() {
        let provider = provider().await;
        let keys = provider.keys();
        let token = provider.token("User1@contoso.test").unwrap();
        let now = crate::lab::unix_micros() / 1_000_000;

        let user = keys.user_of(&token, now);
        assert_eq!(user, Some(UserName::new("user1@contoso.test")));
        assert_eq!(keys.user_of(&token, now + 3900), None);
        assert_eq!(keys.user_of(&format!("{token}x"), now), None);
        keys.rotate(true).unwrap();
        assert!(keys.user_of(&token, now).is_some());
        keys.rotate(false).unwrap();
        assert!(keys.user_of(&token, now).is_none());
    }

    #[tokio::test]
    async fn commands_do_what_they_say_and_explain_what_they_do_not_know() {
        let provider = provider().await;
        let obey = |method: &str, target: &str| provider.shared.obey(method, target);

        let Some(Reply(_, _, _, token)) = obey("GET", "/token?user=user1%40contoso.test").unwrap()
        else {
            panic!("no token");
        };
        let named = named_in(token.trim()).unwrap().0;
        assert_eq!(named.as_str(), "user1@contoso.test");
        let published = || {
            provider.keys().published().unwrap()["keys"]
                .as_array()
                .unwrap()
                .len()
        };
        obey("POST", "/rotate").unwrap();
        assert_eq!(published(), 2);
        obey("POST", "/rotate?keep=false").unwrap();
        assert_eq!(published(), 1);
        obey("POST", "/fault?kind=slow").unwrap();
        assert!(obey("GET", "/keys").unwrap().is_none());
        for wrong in [
            "/token",
            "/token?user=a&seconds=x",
            "/fault?kind=nice",
            "/nothing",
        ] {
            assert!(obey("POST", wrong).is_err(), "{wrong}");
        }
    }
}
