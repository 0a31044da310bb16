//! `mapigate lab identity-provider`: tokens for whoever asks, and keys that rotate on command.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::read;
use crate::lab::authority::{self, Credential};
use crate::lab::identity_provider::{IdentityProvider, Options};

#[derive(Debug, Args)]
pub(super) struct ProviderArgs {
    /// Where to listen; port 0 takes any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What it calls its host in URLs and tokens; the address where this is not said.
    #[arg(long)]
    host: Option<String>,
    /// Certificate for TLS, PEM.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Whom its tokens are for.
    #[arg(long, default_value = "https://mail.contoso.test/")]
    audience: String,
    /// How long its tokens are good.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    lifetime: Duration,
}

pub(super) async fn serve(args: ProviderArgs) -> anyhow::Result<ExitCode> {
    let tls = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            let credential = Credential {
                certificate: read(certificate)?,
                key: read(key)?,
            };
            Some(authority::server_config(&credential, None)?)
        }
        _ => None,
    };
    let options = Options {
        listen: args.listen,
        host: args.host,
        tls,
        audience: args.audience,
        lifetime: args.lifetime,
    };
    let provider = IdentityProvider::spawn(options).await?;
    let said = serde_json::json!({
        "issuer": provider.issuer(),
        "address": provider.address(),
    });
    writeln!(io::stdout(), "{said}")?;
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}
