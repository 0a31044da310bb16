//! Whose a certificate is, and when it is nobody's.

use super::super::{Authenticator, Memo};
use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    OtherNameValue, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateRevocationListDer;
use std::collections::BTreeMap;
use time::OffsetDateTime;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Noon of the day the tests live in.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn day(days: i64) -> OffsetDateTime {
    OffsetDateTime::from(now()) + time::Duration::days(days)
}

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (day(-10), day(100));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

enum Name<'a> {
    Subject(&'a str),
    Upn(&'a str),
    Email(&'a str),
    Sid(&'a str),
    SidUri(&'a str),
}

fn certificate(issuer: &Issuer, names: &[Name<'_>]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (day(-1), day(30));
    params.serial_number = Some(SerialNumber::from(7_u64));
    for name in names {
        match name {
            Name::Subject(text) => params.distinguished_name.push(DnType::CommonName, *text),
            Name::Upn(text) => {
                let value = OtherNameValue::Utf8String((*text).to_owned());
                let oid = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
                params
                    .subject_alt_names
                    .push(SanType::OtherName((oid, value)));
            }
            Name::Email(text) => {
                let name = SanType::Rfc822Name((*text).try_into().unwrap());
                params.subject_alt_names.push(name);
            }
            Name::SidUri(text) => {
                let uri = format!("tag:microsoft.com,2022-09-14:sid:{text}");
                let name = SanType::URI(uri.as_str().try_into().unwrap());
                params.subject_alt_names.push(name);
            }
            Name::Sid(text) => {
                let length = u8::try_from(text.len()).unwrap();
                let oid = [0x06, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x19, 2, 1];
                let head = [0x30, length + 18, 0xa0, length + 16];
                let value = [0xa0, length + 2, 0x04, length];
                let content = [&head[..], &oid, &value, text.as_bytes()].concat();
                let oid = [1, 3, 6, 1, 4, 1, 311, 25, 2];
                let extension = CustomExtension::from_oid_content(&oid, content);
                params.custom_extensions.push(extension);
            }
        }
    }
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, issuer).unwrap().der().clone()
}

fn list(issuer: &Issuer, serials: &[u64]) -> Vec<u8> {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: day(-1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: day(-1),
        next_update: day(7),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().to_vec()
}

/// Trust in these authorities, with these lists.
fn trust(issuers: &[&Issuer], lists: &[Vec<u8>]) -> Arc<Trust> {
    let mut roots = RootCertStore::empty();
    issuers
        .iter()
        .for_each(|issuer| roots.add(issuer.der().clone()).unwrap());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let lists = lists
        .iter()
        .cloned()
        .map(CertificateRevocationListDer::from);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .only_check_end_entity_revocation()
        .build();
    Arc::new(Trust::new(verifier.unwrap(), false))
}

fn trusts(trust: Arc<Trust>) -> Trusts {
    Arc::new(ArcSwap::from_pointee(Some(trust)))
}

/// What was shown, as after a resumed handshake: nobody has looked at it.
fn shown(certificate: CertificateDer<'static>, trusts: &Trusts) -> Presented {
    Presented::new(&[certificate], trusts, None)
}

/// Names and whose they are; a mailbox of the same number each.
struct Known(BTreeMap<&'static str, &'static str>, bool);

impl Known {
    fn people() -> Self {
        let known = [
            ("user1@contoso.test", "user1@contoso.test"),
            ("alias1@contoso.test", "user1@contoso.test"),
            ("user2@contoso.test", "user2@contoso.test"),
            ("s-1-5-21-1-2-3-1001", "user1@contoso.test"),
            ("s-1-5-21-1-2-3-1002", "user2@contoso.test"),
        ];
        Self(known.into(), false)
    }
}

impl Holders for Known {
    fn holder(&self, claim: &Claim) -> Whose {
        match self.0.get(claim.name.as_str()) {
            Some(user) => Whose::Known(Holder {
                user: UserName::new(*user),
                mailbox: Some(MailboxId::new(*user)),
            }),
            None => Whose::Nobody,
        }
    }

    fn knows_sids(&self) -> bool {
        self.1
    }
}

fn mapping() -> CertificateAuth {
    CertificateAuth {
        map: CertificateName::ALL.to_vec(),
        issuers: None,
        domains: Vec::new(),
    }
}

fn judged_by(
    settings: &CertificateAuth,
    shown: &Presented,
    holders: &dyn Holders,
) -> Result<String, Denied> {
    let certificate = Certificate::new(settings, None).unwrap();
    let people = People::default();
    let proven = certificate.judge(shown, &people, holders, now());
    proven.map(|proven| proven.unwrap().user.to_string())
}

fn judged(names: &[Name<'_>]) -> Result<String, Denied> {
    let issuer = authority("users");
    let trusts = trusts(trust(&[&issuer], &[]));
    let shown = shown(certificate(&issuer, names), &trusts);
    judged_by(&mapping(), &shown, &Known::people())
}

fn denied(why: &'static str) -> Result<String, Denied> {
    Err(Denied::Credentials(why))
}

#[test]
fn every_kind_of_name_finds_its_user_and_the_subject_finds_nobody() {
    let user = |number: u8| Ok(format!("user{number}@contoso.test"));

    assert_eq!(judged(&[Name::Sid("S-1-5-21-1-2-3-1001")]), user(1));
    assert_eq!(judged(&[Name::SidUri("S-1-5-21-1-2-3-1002")]), user(2));
    assert_eq!(judged(&[Name::Upn("User1@Contoso.test")]), user(1));
    assert_eq!(judged(&[Name::Email("user2@contoso.test")]), user(2));
    assert_eq!(
        judged(&[Name::Subject("user1@contoso.test")]),
        denied(NOBODY)
    );
    assert_eq!(judged(&[]), denied(NOBODY));
}

#[test]
fn the_identifier_counts_before_names_that_may_have_been_given_to_others() {
    let names = [
        Name::Email("user1@contoso.test"),
        Name::Upn("user1@contoso.test"),
        Name::Sid("S-1-5-21-1-2-3-1002"),
    ];
    assert_eq!(judged(&names).unwrap(), "user2@contoso.test");

    // In the order of the settings.
    let issuer = authority("users");
    let trusts = trusts(trust(&[&issuer], &[]));
    let shown = shown(certificate(&issuer, &names), &trusts);
    let mut settings = mapping();
    settings.map = vec![CertificateName::Email];
    let by_email = judged_by(&settings, &shown, &Known::people());
    assert_eq!(by_email.unwrap(), "user1@contoso.test");
}

#[test]
fn where_identifiers_are_known_an_unknown_one_is_nobodys_whatever_stands_beside_it() {
    let issuer = authority("users");
    let trusts = trusts(trust(&[&issuer], &[]));
    let names = [
        Name::Sid("S-1-5-21-9-9-9-9"),
        Name::Upn("user1@contoso.test"),
    ];
    let shown = shown(certificate(&issuer, &names), &trusts);
    let mut known = Known::people();

    assert_eq!(
        judged_by(&mapping(), &shown, &known).unwrap(),
        "user1@contoso.test"
    );
    known.1 = true;
    assert_eq!(judged_by(&mapping(), &shown, &known), denied(NOBODY));
}

#[test]
fn two_names_of_one_user_are_one_and_names_of_two_users_are_nobody() {
    let same = [
        Name::Upn("user1@contoso.test"),
        Name::Upn("alias1@contoso.test"),
    ];
    let two = [
        Name::Email("user1@contoso.test"),
        Name::Email("user2@contoso.test"),
    ];

    assert_eq!(judged(&same).unwrap(), "user1@contoso.test");
    assert_eq!(judged(&two), denied(SEVERAL));
}

#[test]
fn an_authority_names_users_of_its_domains_and_where_it_is_listed() {
    let (users, machines) = (authority("users"), authority("machines"));
    let trusts = trusts(trust(&[&users, &machines], &[]));
    let name = || [Name::Upn("user1@contoso.test")];
    let mut settings = mapping();
    settings.issuers = Some(vec![users.der().to_vec()]);
    let of = |issuer: &Issuer, settings: &CertificateAuth| {
        let shown = shown(certificate(issuer, &name()), &trusts);
        judged_by(settings, &shown, &Known::people())
    };

    assert!(of(&users, &settings).is_ok());
    assert_eq!(of(&machines, &settings), denied(WRONG_ISSUER));
    settings.domains = vec!["fabrikam.test".to_owned()];
    assert_eq!(of(&users, &settings), denied(WRONG_DOMAIN));
}

#[test]
fn a_resumed_certificate_is_looked_at_again_and_ends_when_it_ends() {
    let (users, strangers) = (authority("users"), authority("strangers"));
    let name = [Name::Upn("user1@contoso.test")];
    let good = trusts(trust(&[&users], &[]));
    let by_users = shown(certificate(&users, &name), &good);
    let by_strangers = shown(certificate(&strangers, &name), &good);

    assert_eq!(by_users.stands(now()), Ok(()));
    let later = now() + Duration::from_secs(31 * 24 * 3600);
    assert_eq!(by_users.stands(later), Err("client certificate expired"));
    assert_eq!(
        by_strangers.stands(now()),
        Err("client certificate of an authority that is not trusted")
    );
}

#[test]
fn a_certificate_that_is_revoked_under_way_stands_no_longer() {
    let users = authority("users");
    let first = trust(&[&users], &[list(&users, &[])]);
    let trusts = trusts(Arc::clone(&first));
    let own = certificate(&users, &[Name::Upn("user1@contoso.test")]);
    let shown = Presented::new(&[own], &trusts, Some(&first));
    assert_eq!(shown.stands(now()), Ok(()));

    trusts.store(Arc::new(Some(trust(&[&users], &[list(&users, &[7])]))));
    assert_eq!(shown.stands(now()), Err("client certificate revoked"));
    trusts.store(Arc::new(Some(trust(
        &[&users],
        &[list(&authority("other"), &[])],
    ))));
    assert_eq!(
        shown.stands(now()),
        Err("no revocation list of the client certificate's authority")
    );
    trusts.store(Arc::new(None));
    assert!(shown.stands(now()).is_err());
}

#[test]
fn a_connection_remembers_whose_its_certificate_is_until_something_changes() {
    let mut site = super::super::tests::Site::with(&[]);
    site.settings.certificate = mapping();
    let auth = site.start();
    let users = authority("users");
    let trusts = trusts(trust(&[&users], &[]));
    let shown = shown(
        certificate(&users, &[Name::Upn("user1@contoso.test")]),
        &trusts,
    );
    let (mut memo, known) = (Memo::default(), Known::people());
    let mut look_at = |auth: &Authenticator, known: &Known, configuration, now| {
        let found = auth.by_certificate(&shown, &mut memo, known, configuration, now);
        found.map(|certified| match certified {
            Certified::Known(identity, is_new) => (identity.user.to_string(), is_new),
            Certified::Ask(_) => unreachable!("nobody is asked here"),
        })
    };
    let later = now() + site.settings.cache_ttl;
    let mut look = |auth: &Authenticator, known: &Known, configuration| {
        look_at(auth, known, configuration, now())
    };
    let user = |is_new| Ok(("user1@contoso.test".to_owned(), is_new));

    assert_eq!(look(&auth, &known, 1), user(true));
    assert_eq!(look(&auth, &known, 1), user(false));
    assert_eq!(look(&auth, &known, 2), user(true));
    assert!(auth.revoke(&UserName::new("user1@contoso.test")));
    assert_eq!(look(&auth, &known, 2), user(true));
    auth.revoke_all();
    assert_eq!(look(&auth, &known, 2), user(true));
    site.settings.certificate.map = vec![CertificateName::Email];
    let next = site.reload(&auth);
    assert_eq!(look(&next, &known, 2), Err(Denied::Credentials(NOBODY)));
    // The directory is looked at again after a while.
    assert_eq!(look(&auth, &known, 3), user(true));
    assert_eq!(look_at(&auth, &known, 3, later), user(true));
}
