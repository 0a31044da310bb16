//! Tickets that end: whoever was let in by one is let in no longer, however long the connection lives.

use crate::client::{negotiate, ping};
use crate::evidence::site_of_each;
use crate::lab::{Lab, PASSWORD};
use crate::site::{AdSite, Offer, eventually, start_with};
use mapigate::gss::Client;
use mapigate::lab::site::HOST;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// mapigate that allows clocks to differ by so many seconds.
pub(crate) async fn allowing(seconds: u32) -> (AdSite, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("krb5.conf");
    let text = fs::read_to_string(Lab::find().path("krb5.conf")).unwrap();
    let skew = format!("[libdefaults]\n  clockskew = {seconds}");
    fs::write(&conf, text.replacen("[libdefaults]", &skew, 1)).unwrap();
    let site = start_with(Offer::of("negotiate, basic"), |mut plan| {
        let name = "KRB5_CONFIG".to_owned();
        plan.environment.retain(|(known, _)| *known != name);
        plan.environment.push((name, conf.display().to_string()));
        plan
    })
    .await;
    (site, folder)
}

/// Alice with a ticket for so many seconds from now, on the way to the service of a host; and since when.
fn alice(seconds: u32, folder: &Path, host: &str) -> (Client, Instant) {
    let tickets = folder.join(format!("alice.{seconds}"));
    let began = Instant::now();
    let life = format!("{seconds}s");
    let service = format!("HTTP/{host}");
    let mut words = vec!["-l", &life];
    // Samba takes no ticket-granting ticket of two minutes and less, which could be one to change a password with.
    if seconds <= 120 {
        words.extend(["-S", &service]);
    }
    Lab::find().log_on_with(&words, "alice", PASSWORD, &tickets);
    let cache = format!("FILE:{}", tickets.display());
    (Client::with_tickets(&cache, host).unwrap(), began)
}

fn word(client: &mut Client) -> String {
    negotiate(&client.say(None, None).unwrap().unwrap())
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_connection_is_proven_for_as_long_as_the_ticket_lives_and_by_the_next_ticket_again() {
    let (site, folder) = allowing(1).await;
    let (mut client, began) = alice(5, folder.path(), HOST);
    let (mut short, mut long) = (site.line().await, site.line().await);
    let (mut other, _) = alice(3600, folder.path(), HOST);
    let first = short.ask(&ping(Some(&word(&mut client)))).await.unwrap();
    let lasting = long.ask(&ping(Some(&word(&mut other)))).await.unwrap();
    assert_eq!((first.head.status, lasting.head.status), (200, 200));

    let mut last = Instant::now();
    let refused = loop {
        let answer = short.ask(&ping(None)).await.unwrap();
        match answer.head.status {
            200 => last = Instant::now(),
            _ => break answer,
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };

    eprintln!("good for {:?} to {:?}", last - began, began.elapsed());
    assert_eq!(refused.head.status, 401);
    assert_eq!(
        refused.head.all("WWW-Authenticate").next(),
        Some("Negotiate")
    );
    // Its five seconds, less what they began before, and one by which clocks may differ.
    assert!(last - began > Duration::from_secs(3), "{:?}", last - began);
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(long.ask(&ping(None)).await.unwrap().head.status, 200);
    let (mut next, _) = alice(600, folder.path(), HOST);
    let anew = short.ask(&ping(Some(&word(&mut next)))).await.unwrap();
    assert_eq!(anew.head.status, 200);
    assert_eq!(short.ask(&ping(None)).await.unwrap().head.status, 200);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_that_has_ended_opens_nothing_and_the_log_says_so() {
    let (site, folder) = allowing(1).await;
    let (mut client, began) = alice(3, folder.path(), HOST);
    let late = word(&mut client);

    eventually("its time is over", || async {
        began.elapsed() > Duration::from_secs(6)
    })
    .await;
    let answer = site.shown(&late).await;

    assert_eq!(answer.head.status, 401);
    let reasons = site.reasons(1).await;
    assert_eq!(reasons, ["ticket has expired"]);
    assert!(site.served().is_empty());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_in_its_last_minutes_is_handed_on_all_the_same() {
    let (lab, folder) = (Lab::find(), tempfile::tempdir().unwrap());
    let service = lab.service("HTTP/mbx1.contoso.test", folder.path());
    let site = site_of_each(&service).await;
    let (mut client, _) = alice(200, folder.path(), &service.host);
    let mut line = site.line().await;

    let mut statuses = Vec::new();
    for request in [ping(Some(&word(&mut client))), ping(None), ping(None)] {
        statuses.push(line.ask(&request).await.unwrap().head.status);
    }

    assert_eq!(statuses, [200; 3], "{:?}", site.reasons(3).await);
}
