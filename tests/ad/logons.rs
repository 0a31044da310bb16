//! The directory service: who may log on, whose mailbox is where, and that changes of both are seen.

use crate::lab::{DOMAIN, Lab};
use crate::ldap::{Mailbox, SECRET, database_dn, eventually, ldap, plan, start, start_planned};
use std::time::Instant;

const LDAPS: &str = "ldaps://dc1.contoso.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_password_of_the_domain_opens_the_users_own_mailbox() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "listed", &ldap(&lab, LDAPS, "")).await;
    let name = &user.user.name;

    for login in [
        user.upn(),
        name.clone(),
        name.to_uppercase(),
        format!("{name}.alias@{DOMAIN}"),
        format!(r"CONTOSO\{name}"),
    ] {
        let credentials = format!("{login}:{SECRET}");
        assert_eq!(
            site.status(&credentials, Some(&user.id())).await,
            200,
            "{login}"
        );
    }
    // Without a mailbox in the URL it is the user's own.
    site.ping(&user.credentials(), None).await;
    let own = site.line(|line| line["status"] == 400).await;
    assert_eq!(
        (&own["database"], &own["server"]),
        (&"DB01".into(), &"MBX1".into())
    );
    // One user, whatever the name.
    let line = site.line(|line| line["status"] == 200).await;
    assert_eq!(line["user"], user.upn());
    assert_eq!(line["database"], "DB01");
    assert_eq!(line["server"], "MBX1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_wrong_password_reads_like_an_unknown_user_and_costs_the_same() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    // Its entry is remembered from here on, which must not show.
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );

    let before = site.work().await;
    let wrong = site
        .ping(&format!("{}:wrong", user.upn()), Some(&user.id()))
        .await;
    let between = site.work().await;
    let unknown = site
        .ping(&format!("nobody.at.all@{DOMAIN}:wrong"), Some(&user.id()))
        .await;
    let after = site.work().await;

    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.words(), unknown.words());
    let cost = |from: [f64; 2], to: [f64; 2]| [to[0] - from[0], to[1] - from[1]];
    assert_eq!(cost(before, between), [1.0, 1.0], "one search, one bind");
    assert_eq!(cost(between, after), cost(before, between));
    // Only the operator learns more.
    let line = site
        .line(|line| line["why"].to_string().contains("52e"))
        .await;
    assert_eq!(line["status"], 401);
    assert!(!wrong.text.contains("52e"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_empty_password_never_reaches_the_directory() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;

    let got = site
        .ping(&format!("{}:", user.upn()), Some(&user.id()))
        .await;

    assert_eq!(got.status, 401);
    assert_eq!(site.work().await, [0.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn only_the_owner_and_the_delegates_of_the_directory_open_a_mailbox() {
    let lab = Lab::find();
    let [owner, delegate, stranger] = [(); 3].map(|()| Mailbox::new(&lab, "DB02"));
    owner.modify(&format!(
        "add: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    let site = start(&lab, "listed", &ldap(&lab, LDAPS, "")).await;
    let id = owner.id();

    assert_eq!(site.status(&owner.credentials(), Some(&id)).await, 200);
    assert_eq!(site.status(&delegate.credentials(), Some(&id)).await, 200);
    assert_eq!(site.status(&stranger.credentials(), Some(&id)).await, 403);
    assert_eq!(
        site.status(&owner.credentials(), Some(&delegate.id()))
            .await,
        403
    );
    let nobody = format!("00000000-0000-4000-8000-000000000001@{DOMAIN}");
    assert_eq!(site.status(&owner.credentials(), Some(&nobody)).await, 404);

    // Who is no delegate any more is out in time.
    owner.modify(&format!(
        "delete: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    site.becomes(403, &delegate.credentials(), Some(&id)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn below_other_directories_an_address_in_the_path_leads_to_its_mailbox_for_who_may_open_it() {
    let lab = Lab::find();
    let (owner, delegate) = (Mailbox::new(&lab, "DB02"), Mailbox::new(&lab, "DB01"));
    owner.modify(&format!(
        "add: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    let plan = plan("listed", &ldap(&lab, LDAPS, ""))
        .section("virtual_directories", "{ preset: exchange2019 }");
    let site = start_planned(plan).await;
    let served = |(status, words): (u16, String)| {
        let word = |name: &str| {
            let mut all = words.split(' ');
            all.find_map(|word| word.strip_prefix(name).map(str::to_owned))
        };
        (status, word("server="), word("user="))
    };
    let by = |server: &str, user: &Mailbox<'_>| (200, Some(server.to_owned()), Some(user.upn()));
    let name = &owner.user.name;

    let own = site.page(&delegate.credentials(), "/ews/x").await;
    assert_eq!(served(own), by("MBX1", &delegate));
    for address in [owner.upn(), format!("{name}.alias@{DOMAIN}"), owner.id()] {
        let path = format!("/owa/{address}/");
        let page = site.page(&delegate.credentials(), &path).await;
        assert_eq!(served(page), by("MBX2", &delegate), "{address}");
        let page = site.page(&owner.credentials(), &path).await;
        assert_eq!(served(page), by("MBX2", &owner), "{address}");
    }
    let path = format!("/owa/{}/", delegate.upn());
    assert_eq!(site.page(&owner.credentials(), &path).await.0, 403);
    let path = format!("/owa/nobody.at.all@{DOMAIN}/");
    assert_eq!(site.page(&owner.credentials(), &path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_mailbox_that_moves_to_another_database_is_followed() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    let (credentials, id) = (user.credentials(), user.id());
    assert_eq!(site.status(&credentials, Some(&id)).await, 200);
    assert_eq!(
        site.line(|line| line["status"] == 200).await["server"],
        "MBX1"
    );

    user.modify(&format!(
        "replace: homeMDB\nhomeMDB: {}\n-\n",
        database_dn("DB02")
    ));

    eventually("the new database is asked", || async {
        site.status(&credentials, Some(&id)).await;
        let line = site.line(|line| line["status"] == 200).await;
        line["database"] == "DB02" && line["server"] == "MBX2"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_changed_password_ends_the_old_one_in_time() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    let (old, id) = (user.credentials(), user.id());
    let new = format!("{}:another Secret 2", user.upn());
    assert_eq!(site.status(&old, Some(&id)).await, 200);
    let binds = site.work().await[1];
    assert_eq!(site.status(&old, Some(&id)).await, 200);
    assert_eq!(site.work().await[1], binds, "remembered");

    lab.tool(&[
        "user",
        "setpassword",
        &user.user.name,
        "--newpassword=another Secret 2",
    ]);

    let changed = Instant::now();
    site.becomes(401, &old, Some(&id)).await;
    eprintln!("the old password was refused after {:?}", changed.elapsed());
    site.becomes(200, &new, Some(&id)).await;
    assert!(site.metric("directory_revocations_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_disabled_user_is_out_in_time() {
    let lab = Lab::find();
    let [user, other] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let site = start(&lab, "backend", &ldap(&lab, LDAPS, "")).await;
    for user in [&user, &other] {
        assert_eq!(
            site.status(&user.credentials(), Some(&user.id())).await,
            200
        );
    }

    lab.tool(&["user", "disable", &user.user.name]);

    let disabled = Instant::now();
    site.becomes(401, &user.credentials(), Some(&user.id()))
        .await;
    eprintln!("the disabled user was out after {:?}", disabled.elapsed());
    assert_eq!(
        site.status(&other.credentials(), Some(&other.id())).await,
        200
    );
    // Its mailbox stays for whom the mailbox server lets in.
    assert_eq!(
        site.status(&other.credentials(), Some(&user.id())).await,
        200
    );
}
