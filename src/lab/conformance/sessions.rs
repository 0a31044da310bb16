//! Questions about sessions, codes, cookies and identities.

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::Subject;
use super::talk::Talk;
use crate::mapi::bodies::nspi::{
    Names, PropertyTags, QueryRowsRequest, QueryRowsSuccess, ResolveNamesRequest,
    ResolveNamesSuccess, Stat, UnbindRequest, UrlRequest, UrlSuccess,
};
use crate::mapi::bodies::{
    Answer, Body, ConnectSuccess, DisconnectRequest, EndSuccess, ExecuteSuccess, wide,
};
use crate::mapi::{Endpoint, Flavour};

const EMSMDB: Endpoint = Endpoint::Emsmdb;

pub(super) async fn tc01_after_disconnect_the_context_is_gone(
    subject: &Subject,
) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let opened = talk.open(&mut line).await?;
    let tagged = opened.tagged().context("no DONE")?;
    let body = success::<ConnectSuccess>(&tagged.body)?;
    ensure!(body.error_code == 0, "ErrorCode {:#x}", body.error_code);

    let ask = talk.execute();
    let answer = talk.expect(&mut line, ask, 0).await?;
    success::<ExecuteSuccess>(&answer.tagged().context("no DONE")?.body)?;

    let ask = talk.request("Disconnect", DisconnectRequest::default().encode());
    let answer = talk.expect(&mut line, ask, 0).await?;
    let body = success::<EndSuccess>(&answer.tagged().context("no DONE")?.body)?;
    ensure!(body.error_code == 0, "ErrorCode {:#x}", body.error_code);

    let ask = talk.execute();
    talk.expect(&mut line, ask, 10).await?;
    let ask = talk.request("Disconnect", DisconnectRequest::default().encode());
    let (code, _) = talk.ask(&mut line, ask).await?;
    ensure!(matches!(code, 0 | 10), "second Disconnect gave code {code}");
    Ok(())
}

pub(super) async fn tc01_disconnect_may_have_no_body(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.request("Disconnect", Vec::new());
    talk.expect(&mut line, ask, 0).await.map(drop)
}

pub(super) async fn tc02_an_idle_context_expires_and_old_cookies_reconnect(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    for pings_only in [true, false] {
        // Used now and then, it lives; left alone, it does not.
        let rest = if pings_only {
            subject.lifetime / 2
        } else {
            subject.lifetime * 3 / 2
        };
        sleep(rest).await;
        let ask = talk.execute();
        let wanted = if pings_only { 0 } else { 10 };
        talk.expect(&mut line, ask, wanted).await?;
    }

    // gromox stumbles over a context cookie it does not know; a proxy strips it.
    if subject.flavour == Flavour::Gromox && !subject.is_proxied {
        let ask = talk.opening();
        talk.expect(&mut line, ask, 10).await?;
        return Ok(());
    }
    let old = talk.cookies.clone();
    talk.open(&mut line).await?;
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0).await?;

    let name = talk.context_name();
    talk.cookies = old.into_iter().filter(|(known, _)| known == name).collect();
    talk.open(&mut line)
        .await
        .context("with the context cookie only")?;
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0).await.map(drop)
}

pub(super) async fn tc02_a_live_context_is_replaced_by_connecting_again(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let old = talk.cookies.clone();
    talk.open(&mut line).await?;
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0).await?;

    // Exchange gives a new context; gromox goes on under the old name, with a new sequence.
    talk.cookies = old;
    let wanted = match subject.flavour {
        Flavour::Exchange => 10,
        Flavour::Gromox => 15,
    };
    let ask = talk.execute();
    talk.expect(&mut line, ask, wanted).await.map(drop)
}

pub(super) async fn tc03_an_unknown_request_type_is_code_5(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.request("Bogus", Vec::new());
    talk.expect(&mut line, ask, 5).await.map(drop)
}

pub(super) async fn tc03_no_cookie_is_code_13(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    for kind in ["Execute", "NotificationWait", "Disconnect"] {
        let ask = talk.request(kind, vec![0; 8]);
        talk.expect(&mut line, ask, 13).await.context(kind)?;
    }
    Ok(())
}

pub(super) async fn tc04_an_impossible_cookie_is_refused(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    talk.cookies = vec![(talk.context_name().to_owned(), "Invalid cookie".to_owned())];
    let ask = talk.execute();
    let (code, _) = talk.ask(&mut line, ask).await?;
    // gromox does not tell malformed from unknown.
    ensure!(matches!(code, 6 | 10), "code {code}");
    Ok(())
}

pub(super) async fn tc05_a_body_without_its_bytes_is_code_12(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.request("Execute", vec![3, 0, 0, 0, 10, 0, 0, 0]);
    talk.expect(&mut line, ask, 12).await.map(drop)
}

pub(super) async fn tc06_ping_with_a_session_is_code_0(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.request("PING", Vec::new());
    let answer = talk.expect(&mut line, ask, 0).await?;
    ensure!(
        answer.head.header("x-expirationinfo").is_some(),
        "no X-ExpirationInfo"
    );
    if !answer.body().is_empty() {
        let tagged = answer.tagged().context("no DONE")?;
        ensure!(tagged.body.is_empty(), "PING has a body");
    }
    // It rotates nothing.
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0).await.map(drop)
}

pub(super) async fn tc06_ping_without_a_session_is_the_flavours_answer(
    subject: &Subject,
) -> anyhow::Result<()> {
    for endpoint in Endpoint::ALL {
        let mut talk = Talk::new(subject, endpoint);
        let mut line = talk.line().await?;
        let ask = talk.request("PING", Vec::new());
        let wanted = match subject.flavour {
            Flavour::Exchange => 0,
            Flavour::Gromox => 13,
        };
        talk.expect(&mut line, ask, wanted).await?;
    }
    Ok(())
}

pub(super) async fn tc07_of_two_parallel_executes_one_is_code_15(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let mut other = talk.line().await?;
    let first = talk.execute().with("X-Lab-Delay", "100");
    let second = talk.execute().with("X-Lab-Delay", "100");

    let (first, second) = tokio::join!(first.send(&mut line), second.send(&mut other));
    let mut codes = [talk.code(&first?)?, talk.code(&second?)?];
    codes.sort_unstable();

    ensure!(codes == [0, 15], "codes {codes:?}");
    Ok(())
}

pub(super) async fn tc11_no_request_id_is_code_7(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let ask = talk.opening().without("X-RequestId");
    talk.expect(&mut line, ask, 7).await.map(drop)
}

pub(super) async fn tc11_nobody_is_401(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let ask = talk.opening().without("Authorization");
    let answer = ask.send(&mut line).await?;
    ensure!(answer.head.status == 401, "status {}", answer.head.status);
    let offered: Vec<_> = answer.head.all("www-authenticate").collect();
    ensure!(
        offered.iter().any(|offer| offer.starts_with("Basic")),
        "offers {offered:?}"
    );
    // The same request with credentials, on the same connection.
    talk.open(&mut line).await.map(drop)
}

pub(super) async fn a_wrong_password_is_401(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let ask = talk.opening().by(&subject.user, "not the password");
    let status = ask.send(&mut line).await?.head.status;
    ensure!(status == 401, "status {status}");
    Ok(())
}

pub(super) async fn another_users_context_is_refused(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.execute().by(&subject.stranger, &subject.password);
    let answer = ask.send(&mut line).await?;
    let code = talk.code(&answer)?;
    let wanted = if subject.is_proxied { 10 } else { 11 };
    ensure!(code == wanted, "code {code} instead of {wanted}");
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0)
        .await
        .context("its owner, afterwards")
        .map(drop)
}

pub(super) async fn a_context_hops_over_connections(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, _) = Talk::opened(subject, EMSMDB).await?;
    for _ in 0..5 {
        let mut line = talk.line().await?;
        let ask = talk.execute();
        talk.expect(&mut line, ask, 0).await?;
    }
    Ok(())
}

pub(super) async fn a_connection_carries_several_contexts(subject: &Subject) -> anyhow::Result<()> {
    let (mut one, mut line) = Talk::opened(subject, EMSMDB).await?;
    let mut two = Talk::new(subject, EMSMDB);
    two.open(&mut line).await?;
    let mut book = Talk::new(subject, Endpoint::Nspi);
    book.open(&mut line).await?;
    for _ in 0..3 {
        for talk in [&mut one, &mut two] {
            let ask = talk.execute();
            talk.expect(&mut line, ask, 0).await?;
        }
        let ask = book.request("PING", Vec::new());
        book.expect(&mut line, ask, 0).await?;
    }
    Ok(())
}

pub(super) async fn cookies_in_several_lines_are_found(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    for is_reversed in [false, true] {
        let mut cookies = talk.cookies.clone();
        if is_reversed {
            cookies.reverse();
        }
        let mut ask = talk.execute().without("Cookie");
        for (name, value) in cookies {
            ask = ask.with("cookie", &format!("{name}={value}"));
        }
        talk.expect(&mut line, ask, 0).await?;
    }
    Ok(())
}

pub(super) async fn cookies_come_with_every_good_answer(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let context = format!("{}=", talk.context_name());
    for kind in ["Execute", "PING", "Disconnect"] {
        let ask = match kind {
            "Execute" => talk.execute(),
            _ => talk.request(kind, Vec::new()),
        };
        let answer = talk.expect(&mut line, ask, 0).await?;
        let lines: Vec<_> = answer.head.all("set-cookie").collect();
        ensure!(
            lines.iter().any(|line| line.starts_with(&context)),
            "{kind}: {lines:?}"
        );
        if subject.flavour == Flavour::Exchange {
            // A proxy may add its own, and may not take any away.
            ensure!(lines.len() >= 4, "{kind}: {lines:?}");
            ensure!(
                lines
                    .iter()
                    .any(|line| line.starts_with("MapiSequence=") && line.contains("HttpOnly")),
                "{kind}: {lines:?}"
            );
        }
    }
    Ok(())
}

pub(super) async fn requests_are_echoed(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    for wanted in [0, 12] {
        // gromox itself echoes nothing when it refuses.
        let is_echoed = wanted == 0 || subject.is_proxied || subject.flavour == Flavour::Exchange;
        let ask = match wanted {
            0 => talk.execute(),
            _ => talk.request("Execute", vec![1]),
        };
        let sent: Vec<_> = ["X-RequestType", "X-RequestId", "X-ClientInfo"]
            .iter()
            .map(|name| (*name, ask.header(name).unwrap_or_default().to_owned()))
            .collect();
        let answer = talk.expect(&mut line, ask, wanted).await?;
        for (name, value) in sent {
            let echoed = answer.head.header(name);
            ensure!(
                !is_echoed || echoed == Some(&value),
                "code {wanted}: {name} is {echoed:?} instead of {value:?}"
            );
        }
    }
    Ok(())
}

pub(super) async fn a_refusal_is_framed_by_its_length(subject: &Subject) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let ask = talk.execute();
    let answer = talk.expect(&mut line, ask, 13).await?;
    ensure!(
        answer.head.header("content-type") == Some("text/html"),
        "Content-Type {:?}",
        answer.head.header("content-type")
    );
    ensure!(
        answer.head.header("content-length").is_some(),
        "no Content-Length"
    );
    Ok(())
}

pub(super) async fn a_large_head_is_read(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    // A Kerberos ticket of a user in many groups is that large.
    let ask = talk.execute().with("X-Large", &"x".repeat(48_000));
    talk.expect(&mut line, ask, 0).await.map(drop)
}

pub(super) async fn no_mailbox_id_is_refused_without_a_code(
    subject: &Subject,
) -> anyhow::Result<()> {
    let mut talk = Talk::new(subject, EMSMDB);
    let mut line = talk.line().await?;
    let ask = talk.opening().to(EMSMDB.path());
    let answer = ask.send(&mut line).await?;
    ensure!(
        matches!(answer.head.status, 400 | 404),
        "status {}",
        answer.head.status
    );
    Ok(())
}

pub(super) async fn the_address_book_binds_answers_and_unbinds(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, Endpoint::Nspi).await?;
    let columns = Some(PropertyTags(vec![0x3001_001f, 0x39fe_001f]));

    let query = QueryRowsRequest {
        state: Some(Stat::start()),
        row_count: 50,
        columns: columns.clone(),
        ..QueryRowsRequest::default()
    };
    let ask = talk.request("QueryRows", query.encode());
    let answer = talk.expect(&mut line, ask, 0).await?;
    success::<QueryRowsSuccess>(&answer.tagged().context("no DONE")?.body)?;

    let names = ResolveNamesRequest {
        state: Some(Stat::start()),
        columns,
        names: Some(Names(vec![wide(&format!("=SMTP:{}", subject.user))])),
        ..ResolveNamesRequest::default()
    };
    let ask = talk.request("ResolveNames", names.encode());
    let answer = talk.expect(&mut line, ask, 0).await?;
    success::<ResolveNamesSuccess>(&answer.tagged().context("no DONE")?.body)?;

    let url = UrlRequest {
        dn: wide(&subject.user_dn),
        ..UrlRequest::default()
    };
    let ask = talk.request("GetMailboxUrl", url.encode());
    let answer = talk.expect(&mut line, ask, 0).await?;
    let url = success::<UrlSuccess>(&answer.tagged().context("no DONE")?.body)?;
    ensure!(
        url.url.to_string().starts_with("https://"),
        "URL {}",
        url.url
    );

    let ask = talk.request("Unbind", UnbindRequest::default().encode());
    let answer = talk.expect(&mut line, ask, 0).await?;
    let unbound = success::<EndSuccess>(&answer.tagged().context("no DONE")?.body)?;
    ensure!(unbound.error_code == 1, "ErrorCode {}", unbound.error_code);

    let ask = talk.request("QueryRows", query.encode());
    talk.expect(&mut line, ask, 10).await.map(drop)
}

fn success<T: Body>(body: &[u8]) -> anyhow::Result<T> {
    match Answer::<T>::decode(body)? {
        Answer::Success(success) => Ok(success),
        Answer::Failure { status_code, .. } => anyhow::bail!("StatusCode {status_code:#x}"),
    }
}
