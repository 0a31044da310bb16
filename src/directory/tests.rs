//! What the directory promises, told through its file.

use super::*;
use crate::ids::ServerName;
use crate::ldap::Findings;
use proptest::prelude::*;
use std::time::Instant;

const GUID: &str = "416c6368-656d-794a-6f45-57615272456e";
const ONE: &str = "416c6368-656d-794a-6f45-57615272456e@contoso.test";
const TWO: &str = "516c6368-656d-794a-6f45-57615272456e@contoso.test";

fn databases() -> BTreeMap<DatabaseName, Database> {
    let database = |name: &str| {
        let active = ServerName::new("MBX1");
        let copies = vec![active.clone()];
        (DatabaseName::new(name), Database { copies, active })
    };
    ["DB07", "DB08"].map(database).into()
}

fn settings(access: Access) -> DirectorySettings {
    let defaults = [("fabrikam.test".to_owned(), DatabaseName::new("DB08"))];
    DirectorySettings {
        file: None,
        ldap: None,
        default_databases: defaults.into(),
        access,
    }
}

fn parse(text: impl AsRef<[u8]>) -> Result<Directory, Vec<DirectoryProblem>> {
    let file = Path::new("mailboxes.yaml");
    let settings = settings(Access::Backend);
    Directory::parse(
        text.as_ref(),
        file,
        &settings,
        &databases(),
        Some("contoso.test"),
    )
}

fn one_problem(text: impl AsRef<[u8]>) -> DirectoryProblem {
    let mut problems = parse(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

fn user(name: &str) -> UserName {
    UserName::new(name)
}

fn site() -> Directory {
    parse(format!(
        r"
# two people and what they share
mailboxes:
  - id: {ONE}
    addresses: [User1@contoso.test, u.one@contoso.test]
    logins: [user1, 'CONTOSO\user1']
    database: DB07
    access: listed
    users: [assistant@contoso.test]
  - id: {TWO}
    addresses:
      - assistant@contoso.test
    logins: ['CONTOSO\assistant']
    database: DB08
"
    ))
    .unwrap()
}

#[test]
fn a_mailbox_is_found_by_its_id_in_any_case() {
    let site = site();
    for id in [ONE.to_owned(), ONE.to_uppercase()] {
        let home = site.mailbox(&id).unwrap();
        assert_eq!(home.database().as_str(), "DB07");
        assert_eq!(home.id().as_str(), ONE);
        assert!(home.is_in_file());
    }
    assert_eq!(site.len(), 2);
}

#[test]
fn a_mailbox_in_no_file_lives_in_its_domains_default_database() {
    let site = site();
    let id = "616C6368-656d-794a-6f45-57615272456e@FABRIKAM.test";

    let home = site.mailbox(id).unwrap();

    assert_eq!(home.database().as_str(), "DB08");
    assert_eq!(home.id().as_str(), id.to_lowercase());
    assert!(!home.is_in_file());
}

#[test]
fn a_mailbox_is_found_by_any_name_of_its_owner_and_else_by_its_domain() {
    let listed = DirectorySettings {
        access: Access::Listed,
        ..settings(Access::Listed)
    };
    let listed = Directory::parse(
        b"mailboxes: []",
        Path::new("m"),
        &listed,
        &databases(),
        None,
    );
    let (site, listed) = (site(), listed.unwrap());
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let now = Instant::now();
    let asked = |site: &Directory, address: Option<&str>, asker: &str| match site.whose_address(
        address,
        &user(asker),
        &Findings::default(),
        now,
    ) {
        Whose::Mailbox(id, database) => format!("{id} {database}"),
        other => format!("{other:?}"),
    };
    let (one, two) = (format!("{ONE} DB07"), format!("{TWO} DB08"));
    let (user1, assistant) = ("user1@contoso.test", "assistant@contoso.test");

    assert_eq!(asked(&site, None, user1), one);
    assert_eq!(
        asked(&site, None, "x@fabrikam.test"),
        "x@fabrikam.test DB08"
    );
    assert_eq!(asked(&site, None, "x@elsewhere.test"), "Unknown");
    for name in ["u.one@contoso.test", "user1@contoso.test", ONE] {
        assert_eq!(asked(&site, Some(name), assistant), one, "{name}");
        assert_eq!(asked(&site, Some(name), "x@fabrikam.test"), "Forbidden");
    }
    assert_eq!(asked(&site, Some(assistant), user1), two);
    assert_eq!(
        asked(&site, Some("y@fabrikam.test"), user1),
        "y@fabrikam.test DB08"
    );
    assert_eq!(asked(&site, Some("y@elsewhere.test"), user1), "Unknown");
    assert_eq!(asked(&listed, Some("y@fabrikam.test"), user1), "Forbidden");
    assert_eq!(
        asked(&listed, None, "y@fabrikam.test"),
        "y@fabrikam.test DB08"
    );
}

#[test]
fn what_is_no_mailbox_is_nowhere() {
    let site = site();
    let long = format!("{GUID}@{}", "A".repeat(400));
    for id in [
        "",
        "@",
        "@fabrikam.test",
        "x@fabrikam.test",
        GUID,
        "616c6368-656d-794a-6f45-57615272456e@contoso.test",
        "616c6368-656d-794a-6f45-57615272456e@",
        "616c6368-656d-794a-6f45-57615272456g@fabrikam.test",
        "616c6368-656d-794a-6f45-57615272456e@fabrikam.test@fabrikam.test",
        &long,
    ] {
        assert!(site.mailbox(id).is_none(), "{id}");
    }
}

#[test]
fn an_owner_is_known_by_every_address_and_login() {
    let site = site();
    for name in ["user1@contoso.test", "u.one@contoso.test", r"contoso\user1"] {
        assert_eq!(site.own_mailbox(&user(name)).unwrap().id().as_str(), ONE);
    }
    assert!(site.own_mailbox(&user("user2@contoso.test")).is_none());
    assert!(site.own_mailbox(&user("")).is_none());
}

#[test]
fn a_listed_mailbox_opens_to_its_owner_and_the_listed_only() {
    let site = site();
    let home = site.mailbox(ONE).unwrap();

    for name in [
        "user1@contoso.test",
        "u.one@contoso.test",
        r"contoso\user1",
        "assistant@contoso.test",
        r"contoso\assistant",
    ] {
        assert!(site.may_open(&home, &user(name)), "{name}");
    }
    for name in ["user2@contoso.test", r"fabrikam\user1", "assistant", ""] {
        assert!(!site.may_open(&home, &user(name)), "{name}");
    }
}

#[test]
fn a_mailbox_of_access_backend_opens_to_everybody_because_its_server_decides() {
    let site = site();
    let home = site.mailbox(TWO).unwrap();
    assert!(site.may_open(&home, &user("user2@contoso.test")));
}

#[test]
fn the_settings_decide_for_mailboxes_that_say_nothing() {
    let file = Path::new("mailboxes.yaml");
    let text = format!("mailboxes: [{{ id: {ONE}, addresses: [a@x], database: DB07 }}]");
    let settings = settings(Access::Listed);
    let site = Directory::parse(text.as_bytes(), file, &settings, &databases(), None).unwrap();
    let unlisted = "616c6368-656d-794a-6f45-57615272456e@fabrikam.test";

    let (home, default) = (site.mailbox(ONE).unwrap(), site.mailbox(unlisted).unwrap());

    assert!(site.may_open(&home, &user("a@x")));
    assert!(!site.may_open(&home, &user("b@x")));
    assert!(!site.may_open(&default, &user("a@x")));
}

#[test]
fn every_problem_is_told_at_once_with_its_place_and_cure() {
    let text = format!(
        r"mailboxes:
  - id: {ONE}
    addresses: [user1@contoso.test]
    database: DB70
  - id: {ONE}
    adresses: [x@contoso.test]
    logins: [user1]
    database: DB08
  - id: user3@contoso.test
    database: DB07
    access: nobody
  - addresses: []
"
    );

    let problems = parse(text).unwrap_err();

    let told: Vec<_> = problems
        .iter()
        .map(|p| (p.line, p.column, p.what.as_str()))
        .collect();
    let already = format!("mailbox {ONE} is already described on line 2");
    assert_eq!(
        told,
        [
            (4, 15, "unknown database `DB70`"),
            (6, 5, "unknown key `adresses`"),
            (
                7,
                14,
                "user1@contoso.test already belongs to the mailbox on line 2"
            ),
            (5, 9, already.as_str()),
            (9, 9, "`user3@contoso.test` is not a MailboxId"),
            (11, 13, "`nobody` is not a kind of access"),
            (12, 5, "the mailbox has no `id`"),
            (12, 5, "the mailbox has no `database`"),
        ]
    );
    assert_eq!(problems[0].cure, "did you mean `DB07`?");
    assert_eq!(problems[1].cure, "did you mean `addresses`?");
    assert!(
        problems
            .iter()
            .all(|p| p.file == Path::new("mailboxes.yaml"))
    );
}

#[test]
fn a_login_that_spells_an_address_is_no_mistake_but_a_name_twice_is() {
    let fine = format!(
        "mailboxes: [{{ id: {ONE}, addresses: [user1@contoso.test], logins: [user1], database: DB07 }}]"
    );
    let twice = fine.replace("[user1]", "[user2, USER2]");

    assert!(parse(fine).is_ok());
    assert_eq!(
        one_problem(twice).what,
        "user2@contoso.test is written twice"
    );
}

#[test]
fn a_list_of_users_without_effect_is_a_problem() {
    let text = format!("mailboxes: [{{ id: {ONE}, database: DB07, users: [a@x] }}]");
    let problem = one_problem(&text);
    assert!(problem.what.contains("no effect"), "{problem:?}");
    assert!(parse(text.replace("users", "access: listed, users")).is_ok());
}

#[test]
fn files_of_another_shape_say_what_is_expected() {
    for (text, what) in [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("hello", "the file has no `mailboxes`"),
        ("{}", "the file has no `mailboxes`"),
        ("mailboxes: 7", "`mailboxes` is not a list"),
        ("mailboxes:", "`mailboxes` is not a list"),
        ("mailboxes: [7]", "a mailbox is written as keys and values"),
        (
            "mailboxes: []\nmailboxes: []",
            "`mailboxes` is written twice",
        ),
        ("mailboxes: []\nMailboxes: []", "unknown key `Mailboxes`"),
        (
            "mailboxes: []\n--- \nmailboxes: []",
            "a second YAML document begins here",
        ),
        ("mailboxes: [{ [a]: b }]", "a key is a single word"),
        ("x: &a 1\nmailboxes: *a", "aliases are not read here"),
    ] {
        let problems = parse(text).unwrap_err();
        assert!(
            problems.iter().any(|p| p.what == what),
            "{text:?}: {problems:#?}"
        );
    }
    assert!(parse("mailboxes: []").unwrap().is_empty());
}

#[test]
fn values_of_another_shape_are_named() {
    let entry = |rest: &str| format!("mailboxes: [{{ id: {ONE}, database: DB07, {rest} }}]");
    for (rest, what) in [
        ("addresses: a@x", "`addresses` is not a list"),
        ("addresses: [[a@x]]", "`addresses` is not a single word"),
        ("addresses: [~]", "`addresses` is not a single word"),
        ("logins: ['a ']", "`a ` is not a name"),
        ("access: [listed]", "`access` is not a single word"),
        ("database: DB08", "`database` is written twice"),
    ] {
        assert_eq!(one_problem(entry(rest)).what, what);
    }
    assert!(parse(entry("addresses: , logins: ~")).is_ok());
}

#[test]
fn what_is_not_yaml_or_not_text_is_told_with_its_place() {
    let broken = one_problem("mailboxes:\n  - id: 'x\n");
    assert!(
        broken.what.contains("not YAML") && broken.line > 0,
        "{broken:?}"
    );

    let binary = one_problem(b"mailboxes:\n  - \xff");
    assert_eq!((binary.line, binary.column), (2, 5));
    assert_eq!(binary.what, "the file is not UTF-8 here");
}

#[test]
fn a_thousand_problems_are_counted_and_not_all_listed() {
    let text = "mailboxes:\n".to_owned() + &"  - database: DB07\n".repeat(1000);
    let problems = parse(text).unwrap_err();
    assert_eq!(problems.len(), file::PROBLEMS_MAX + 1);
    assert_eq!(
        problems[file::PROBLEMS_MAX].what,
        "900 more problems are not listed"
    );
}

#[test]
fn deep_nesting_is_refused_and_does_no_harm() {
    let text = "mailboxes: ".to_owned() + &"[".repeat(100_000);
    assert!(parse(text).is_err());
    let text = "mailboxes:\n".to_owned() + &"- ".repeat(50_000);
    assert!(parse(text).is_err());
}

#[test]
fn a_missing_file_is_a_problem_and_no_file_is_none() {
    let none = settings(Access::Backend);
    let missing = DirectorySettings {
        file: Some(PathBuf::from("/nonexistent/mailboxes.yaml")),
        ..none.clone()
    };

    let problems = Directory::load(&missing, &databases(), None).unwrap_err();

    assert_eq!(problems[0].line, 0);
    assert!(problems[0].what.contains("cannot be read"));
    assert!(
        Directory::load(&none, &databases(), None)
            .unwrap()
            .is_empty()
    );
}

proptest! {
    #[test]
    fn any_bytes_as_file_do_not_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&text);
    }

    #[test]
    fn any_yaml_like_text_does_not_panic(text in r"(mailboxes:)?([-:?,\[\]{}&*!|>'#%@` \n\tab0~.]|\n  - |id: |database: DB07|\u{feff}|\r){0,60}") {
        let _ = parse(text);
    }

    #[test]
    fn any_asked_id_does_not_panic(id in "\\PC*") {
        let _ = site().mailbox(&id);
    }
}

#[test]
fn what_autodiscover_tells_of_a_mailbox_is_in_the_file() {
    let site = parse(format!(
        r"
mailboxes:
  - id: {ONE}
    addresses: [User1@contoso.test]
    logins: [user1]
    database: DB07
    mapi_http: false
    display_name: 'Anna & Otto'
    legacy_dn: /o=Contoso/ou=X/cn=Recipients/cn=user1
  - id: {TWO}
    logins: ['CONTOSO\\user2']
    database: DB08
"
    ))
    .unwrap();

    let one = site.mailbox_of("user1@contoso.test").unwrap();
    let two = site.mailbox(TWO).unwrap();

    assert_eq!(
        site.profile(&one),
        Some(Profile {
            address: Some("user1@contoso.test"),
            display_name: Some("Anna & Otto"),
            legacy_dn: Some("/o=Contoso/ou=X/cn=Recipients/cn=user1"),
            mapi_http: Some(false),
            access: Access::Backend,
        })
    );
    let empty = site.profile(&two).unwrap();
    assert_eq!(
        (empty.address, empty.display_name, empty.mapi_http),
        (None, None, None)
    );
    assert!(site.mailbox_of("nobody@contoso.test").is_none());
    assert_eq!(
        site.default_database("x@fabrikam.test").unwrap().as_str(),
        "DB08"
    );
    assert!(
        site.default_database("x@contoso.test").is_none() && site.default_database("x").is_none()
    );
}

#[test]
fn a_switch_that_is_neither_on_nor_off_is_a_problem() {
    let entry = |key: &str| format!("mailboxes:\n  - {{ id: {ONE}, database: DB07, {key} }}\n");

    assert!(
        one_problem(entry("mapi_http: maybe"))
            .what
            .contains("neither true nor false")
    );
    assert!(
        one_problem(entry("display_name: \"a\\nb\""))
            .what
            .contains("is not a line of text")
    );
    assert!(
        one_problem(entry(&format!("legacy_dn: {}", "x".repeat(513))))
            .what
            .contains("is not a line")
    );
}

#[test]
fn an_owner_and_the_listed_are_named_by_a_mailbox_whoever_else_may_open_it() {
    let site = site();
    let (one, two) = (site.mailbox(ONE).unwrap(), site.mailbox(TWO).unwrap());

    assert!(site.is_named_by(&one, &user("user1@contoso.test")));
    assert!(site.is_named_by(&one, &user("contoso\\assistant")));
    assert!(!site.is_named_by(&two, &user("user1@contoso.test")));
    assert!(site.may_open(&two, &user("user1@contoso.test")));
}
