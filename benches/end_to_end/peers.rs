//! The proxies: their configurations and processes.

use crate::client::HOST;
use crate::launch::{Process, Start};
use crate::load::SignOn;
use crate::plan::{MAPIGATE, NEGOTIATED, UNMETERED};
use crate::site::{Site, free_address};
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Reading a thousand users and a certificate takes no proxy this long.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The metric that counts access lines without room.
const LOST_LINES: &str = "mapigate_access_log_dropped_total ";

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name in the tables.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its processes.
    pub(crate) process: Process,
    access_log: Option<PathBuf>,
    admin: Option<SocketAddr>,
}

/// What there is to know before starting one.
struct Recipe {
    command: Vec<String>,
    gently: bool,
    access_log: Option<PathBuf>,
    admin: Option<SocketAddr>,
}

impl Peer {
    /// Starts the proxy `name` alone on its core and waits until it accepts connections.
    pub(crate) fn start(site: &Site, name: &str) -> Result<Self> {
        let address = free_address()?;
        let recipe = match name {
            "nginx" => nginx(site, address)?,
            "haproxy" => haproxy(site, address)?,
            MAPIGATE | UNMETERED | NEGOTIATED => mapigate(site, address, name)?,
            _ => bail!("no peer is called {name}; there are nginx, haproxy and mapigate"),
        };
        let log = site.path(&format!("{name}.log"));
        let mut process = Process::start(&Start {
            name,
            command: &recipe.command,
            core: site.cores.proxy,
            boost: site.cores.boost,
            gently: recipe.gently,
            log: Some(&log),
        })?;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if !process.is_running() {
                bail!("{name} ended at once; it said:\n{}", last_words(&log));
            }
            if Instant::now() > deadline {
                bail!(
                    "{name} does not listen on {address}; it said:\n{}",
                    last_words(&log)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            name: name.to_owned(),
            address,
            process,
            access_log: recipe.access_log,
            admin: recipe.admin,
        })
    }

    /// How its clients sign on.
    pub(crate) fn sign_on(&self) -> SignOn {
        match self.name == NEGOTIATED {
            true => SignOn::Negotiate,
            false => SignOn::Basic,
        }
    }

    /// Empties the access log, so that a long bench does not fill the disk.
    pub(crate) fn forget_log(&self) {
        if let Some(path) = &self.access_log
            && let Ok(file) = fs::OpenOptions::new().write(true).open(path)
        {
            let _ = file.set_len(0);
        }
    }

    /// Access lines lost so far because they found no room. Only mapigate writes any.
    pub(crate) fn lost_lines(&self) -> Result<u64> {
        let Some(admin) = self.admin else {
            return Ok(0);
        };
        let mut stream = TcpStream::connect(admin).context("admin address")?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        stream.write_all(
            format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let page = std::io::read_to_string(stream)?;
        let line = page.lines().find_map(|line| line.strip_prefix(LOST_LINES));
        line.context("no count of lost access lines in the metrics")?
            .trim()
            .parse()
            .context("count of lost access lines")
    }
}

/// The domain that gives tickets, where there is one.
pub(crate) fn lab() -> Option<PathBuf> {
    std::env::var_os("MAPIGATE_AD_LAB").map(PathBuf::from)
}

/// The program file of a peer, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    if name == MAPIGATE {
        return Some(PathBuf::from(env!("CARGO_BIN_EXE_mapigate")));
    }
    // Debian keeps servers in sbin, which is not on everybody's path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// What a peer says of its version: the first line with a digit in it.
pub(crate) fn version(name: &str) -> String {
    let words = program(name).and_then(|program| {
        let option = if name == MAPIGATE { "--version" } else { "-v" };
        let output = Command::new(program).arg(option).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    });
    words
        .unwrap_or_else(|| name.to_owned())
        .replace(" - https://haproxy.org/", "")
}

/// One worker; routed by the context cookie; idle connections to the servers kept; nothing buffered; no log.
fn nginx(site: &Site, address: SocketAddr) -> Result<Recipe> {
    let [first, second] = site.servers;
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let folder = site.folder().display();
    let connections = site.files_max.min(16_384);
    let config = format!(
        r#"daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/nginx.error error;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream mailbox_servers {{
    hash $cookie_mapicontext consistent;
    server 127.0.0.1:{first};
    server 127.0.0.1:{second};
    keepalive 128;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }}
  server {{
    listen {address} ssl backlog=4096;
    server_name {HOST};
    ssl_certificate {folder}/site.pem;
    ssl_certificate_key {folder}/site.key;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_session_tickets on;
    location / {{
      proxy_pass http://mailbox_servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffering off;
      proxy_buffer_size 16k;
      proxy_buffers 4 16k;
      proxy_busy_buffers_size 32k;
      proxy_read_timeout 600s;
      proxy_send_timeout 600s;
    }}
  }}
}}
"#,
        files = site.files_max,
    );
    let file = site.write("nginx.conf", &config)?;
    let error_log = site.path("nginx.error").display().to_string();
    Ok(Recipe {
        command: command(
            "nginx",
            &["-e", &error_log, "-c", &file.display().to_string()],
        )?,
        gently: true,
        access_log: None,
        admin: None,
    })
}

/// One thread; the same routing; connections to the servers shared by all clients; no log.
fn haproxy(site: &Site, address: SocketAddr) -> Result<Recipe> {
    let [first, second] = site.servers;
    let certificate = site.path("site-both.pem");
    let certificate = certificate.display();
    let connections = site.files_max.saturating_sub(200) / 2;
    let config = format!(
        "global
  nbthread 1
  maxconn {connections}
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always
frontend clients
  bind {address} ssl crt {certificate} curves X25519 ciphersuites TLS_AES_256_GCM_SHA384 alpn http/1.1 backlog 4096
  default_backend mailbox_servers
backend mailbox_servers
  balance hash req.cook(MapiContext)
  hash-type consistent
  server first 127.0.0.1:{first}
  server second 127.0.0.1:{second}
"
    );
    let file = site.write("haproxy.cfg", &config)?;
    Ok(Recipe {
        command: command("haproxy", &["-db", "-f", &file.display().to_string()])?,
        gently: false,
        access_log: None,
        admin: None,
    })
}

/// One worker, and everything on that a site would have on: Basic against a password file, the directory,
/// sessions with route cookie, metrics, access log. The log's buffer is larger than by default: that one is
/// full after 1 MiB in 50 ms, which is less than a saturated core writes, and a lost line costs less than
/// a written one.
///
/// Where clients sign on by Kerberos, servers get a service account and the user's name: a ticket is good only here.
fn mapigate(site: &Site, address: SocketAddr, name: &str) -> Result<Recipe> {
    let [first, second] = site.servers;
    let cpu = if name == UNMETERED { "off" } else { "on" };
    let (scheme, negotiate, identity) = match name {
        NEGOTIATED => (
            "negotiate",
            format!(
                ", negotiate: {{ keytab: {}, replay_cache: 'file2:{}' }}",
                lab().context("no lab")?.join("mail.keytab").display(),
                site.path("rcache2").display()
            ),
            "{ mode: basic_service, user: svc@contoso.test, password: secret }",
        ),
        _ => ("basic", String::new(), "{ mode: passthrough }"),
    };
    let admin = free_address()?;
    let access_log = site.path(&format!("{name}-access.log"));
    let config = format!(
        "version: 1
workers: 1
listeners:
  - address: {address}
    certificates: [{{ chain: site.pem, key: site.key }}]
names:
  - host: {HOST}
    internal_url: https://{HOST}/mapi
    external_url: https://{HOST}/mapi
    authentication: [{scheme}]
servers:
  MBX1: {{ address: 127.0.0.1:{first}, tls: off, flavour: exchange, authenticates: requests }}
  MBX2: {{ address: 127.0.0.1:{second}, tls: off, flavour: exchange, authenticates: requests }}
databases:
  DB1: {{ copies: [MBX1, MBX2], active: MBX1 }}
  DB2: {{ copies: [MBX2, MBX1], active: MBX2 }}
directory: {{ file: mailboxes.yaml }}
auth: {{ basic: {{ password_file: users.htpasswd }}{negotiate} }}
backend_identity: {identity}
sessions: {{ route_cookie: {{ keys_file: cookie.keys }} }}
logging: {{ access: {name}-access.log, access_buffer: 64MiB }}
accounting: {{ cpu: {cpu} }}
admin: {{ address: {admin} }}
"
    );
    let file = site.write(&format!("{name}.yaml"), &config)?;
    // Lines `ID BASE64`; this key guards nothing.
    site.write(
        "cookie.keys",
        &format!("1 {}\n", STANDARD.encode([0x5a; 32])),
    )?;
    Ok(Recipe {
        command: command(MAPIGATE, &["run", "--config", &file.display().to_string()])?,
        gently: false,
        access_log: Some(access_log),
        admin: Some(admin),
    })
}

fn command(name: &str, arguments: &[&str]) -> Result<Vec<String>> {
    let program = program(name).with_context(|| format!("{name} is not installed"))?;
    let mut command = vec![program.display().to_string()];
    command.extend(arguments.iter().map(|&argument| argument.to_owned()));
    Ok(command)
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n")
}
