use super::*;
use proptest::prelude::*;

/// What gromox says to everybody: all four blocks, with its own host in every URL.
pub(super) const EVERYTHING: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"><Response xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a">
<User><DisplayName>U&amp;1</DisplayName></User><Account><AccountType>email</AccountType><Action>settings</Action>
<Protocol Type="mapiHttp" Version="1"><MailStore><InternalUrl>https://mbx1.contoso.test:444/mapi/emsmdb/?MailboxId=G@contoso.test</InternalUrl></MailStore><AddressBook><InternalUrl>https://mbx1.contoso.test/mapi/nspi/?MailboxId=G@contoso.test</InternalUrl><ExternalUrl>https://mbx1.contoso.test/mapi/nspi/?MailboxId=G@contoso.test</ExternalUrl></AddressBook></Protocol>
<Protocol><Type>EXCH</Type><Server>G@contoso.test</Server><EwsUrl>https://MBX1.contoso.test/EWS/Exchange.asmx</EwsUrl></Protocol>
<Protocol><Type>EXPR</Type><Server>mbx1.contoso.test</Server><CertPrincipalName>msstd:mbx1.contoso.test</CertPrincipalName></Protocol>
<Protocol><Type>EXHTTP</Type><Server>mbx1.contoso.test</Server><OABUrl>https://oab.contoso.test/OAB/</OABUrl></Protocol>
<Protocol><Type>WEB</Type><Internal><OWAUrl AuthenticationMethod="Basic">https://mbx1.contoso.test/owa</OWAUrl></Internal></Protocol>
</Account></Response></Autodiscover>"#;

fn is_back_end(host: &str) -> bool {
    host.eq_ignore_ascii_case("mbx1.contoso.test")
}

const URLS: Urls<'static> = Urls {
    internal: "https://mail.contoso.test/mapi",
    external: Some("https://outside.contoso.test/mapi"),
};

const MAPI: Offer = Offer {
    mapi_http: Some(1),
    outlook_anywhere: true,
    rpc: false,
    reach: Reach::Everywhere,
    exhttp: true,
};

fn filtered(answer: &str, offer: Offer) -> String {
    let with = Filter {
        offer,
        urls: URLS,
        is_back_end: &is_back_end,
    };
    String::from_utf8(filter(answer.as_bytes(), &with).unwrap()).unwrap()
}

fn blocks(answer: &str) -> Vec<Protocol> {
    let text = xml::text(answer.as_bytes(), ANSWER_MAX).unwrap();
    let tree = Tree::read(&text).unwrap();
    let account = tree.find(&["Autodiscover", "Response", "Account"]).unwrap();
    tree.children(account)
        .filter(|at| tree.is(*at, "Protocol"))
        .map(|at| Protocol::of(&tree, at))
        .collect()
}

#[test]
fn a_capable_client_keeps_mapi_over_http_and_loses_the_old_blocks() {
    let out = filtered(EVERYTHING, MAPI);

    assert_eq!(
        blocks(&out),
        [Protocol::MapiHttp, Protocol::Exhttp, Protocol::Other]
    );
    // One that does not read EXHTTP keeps the old blocks, in which the other services' URLs stand.
    let out = filtered(
        EVERYTHING,
        Offer {
            exhttp: false,
            ..MAPI
        },
    );
    assert_eq!(
        blocks(&out),
        [
            Protocol::MapiHttp,
            Protocol::Exch,
            Protocol::Expr,
            Protocol::Other
        ]
    );
}

#[test]
fn an_incapable_client_loses_mapi_over_http_and_keeps_outlook_anywhere() {
    let offer = Offer {
        mapi_http: None,
        exhttp: false,
        ..MAPI
    };
    let out = filtered(EVERYTHING, offer);

    assert_eq!(
        blocks(&out),
        [Protocol::Exch, Protocol::Expr, Protocol::Other]
    );
    assert!(!out.contains("MailStore"));
    let none = Offer {
        outlook_anywhere: false,
        exhttp: true,
        ..offer
    };
    assert_eq!(blocks(&filtered(EVERYTHING, none)), [Protocol::Other]);
    let rpc = Offer {
        outlook_anywhere: false,
        rpc: true,
        ..offer
    };
    assert_eq!(
        blocks(&filtered(EVERYTHING, rpc)),
        [Protocol::Exch, Protocol::Other]
    );
}

#[test]
fn what_the_server_does_not_offer_is_not_offered_for_it() {
    let old = filtered(
        EVERYTHING,
        Offer {
            mapi_http: None,
            ..MAPI
        },
    );
    let out = filtered(&old, MAPI);

    assert_eq!(out, old);
}

#[test]
fn no_host_of_a_mailbox_server_is_left() {
    for offer in [
        MAPI,
        Offer {
            exhttp: false,
            ..MAPI
        },
        Offer {
            mapi_http: None,
            ..MAPI
        },
    ] {
        let out = filtered(EVERYTHING, offer).to_ascii_lowercase();
        assert!(!out.contains("mbx1"), "{out}");
        // Others' hosts and all that is not ours to change stay as they were.
        assert!(!offer.exhttp || out.contains("https://oab.contoso.test/oab/"));
        assert!(out.contains("<displayname>u&amp;1</displayname>"));
        assert!(out.contains(">https://mail.contoso.test/owa<"));
    }
    let out = filtered(
        EVERYTHING,
        Offer {
            mapi_http: None,
            exhttp: false,
            ..MAPI
        },
    );
    assert!(out.contains("<Type>EXPR</Type><Server>outside.contoso.test</Server><CertPrincipalName>msstd:outside.contoso.test<"));
    assert!(out.contains("<EwsUrl>https://mail.contoso.test/EWS/Exchange.asmx</EwsUrl>"));
}

#[test]
fn both_endpoints_get_the_public_urls_with_the_mailbox_the_server_named() {
    let out = filtered(EVERYTHING, MAPI);
    assert!(out.contains(
        "<MailStore><InternalUrl>https://mail.contoso.test/mapi/emsmdb/?MailboxId=G@contoso.test</InternalUrl><ExternalUrl>https://outside.contoso.test/mapi/emsmdb/?MailboxId=G@contoso.test</ExternalUrl></MailStore>"
    ), "{out}");
    let out = filtered(
        EVERYTHING,
        Offer {
            reach: Reach::Internal,
            ..MAPI
        },
    );
    assert!(
        !out.contains("ExternalUrl") && !out.contains("outside"),
        "{out}"
    );
}

#[test]
fn the_version_is_never_above_what_the_client_reads() {
    let high = EVERYTHING.replace("Version=\"1\"", "Version=\"7\"");
    assert!(filtered(&high, MAPI).contains("<Protocol Type=\"mapiHttp\" Version=\"1\">"));
    let two = Offer {
        mapi_http: Some(2),
        ..MAPI
    };
    assert!(filtered(EVERYTHING, two).contains("<Protocol Type=\"mapiHttp\" Version=\"1\">"));
}

#[test]
fn soap_answers_lose_back_ends_and_mapi_over_http_where_it_is_not_offered() {
    let setting = |name: &str, value: &str| {
        format!(
            "<UserSetting i:type=\"StringSetting\"><Name>{name}</Name><Value>{value}</Value></UserSetting>"
        )
    };
    let answer = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:i=\"i\"><s:Body><UserSettings>{}{}{}</UserSettings></s:Body></s:Envelope>",
        setting(
            "InternalEwsUrl",
            "https://mbx1.contoso.test/EWS/Exchange.asmx"
        ),
        setting("MapiHttpEnabled", "True"),
        setting("ExternalMailboxServer", "mbx1.contoso.test"),
    );

    let offered = filtered(&answer, MAPI);
    let refused = filtered(
        &answer,
        Offer {
            mapi_http: None,
            ..MAPI
        },
    );

    assert!(!offered.contains("mbx1") && offered.contains(&setting("MapiHttpEnabled", "True")));
    assert!(offered.contains(&setting("ExternalMailboxServer", "outside.contoso.test")));
    assert!(refused.contains(&setting("MapiHttpEnabled", "False")));
}

#[test]
fn what_is_no_answer_is_not_passed_on() {
    let with = Filter {
        offer: MAPI,
        urls: URLS,
        is_back_end: &is_back_end,
    };
    for answer in [
        "",
        "{}",
        "<html/>",
        "<Autodiscover>",
        "<!DOCTYPE html><html></html>",
    ] {
        assert!(filter(answer.as_bytes(), &with).is_err(), "{answer}");
    }
    assert_eq!(
        filter(&vec![b' '; ANSWER_MAX + 1], &with),
        Err(Wrong::TooLarge(ANSWER_MAX))
    );
}

#[test]
fn an_answer_in_utf_16_comes_out_in_utf_8_and_says_so() {
    let written = EVERYTHING.replace("utf-8", "utf-16");
    let units = written.encode_utf16().flat_map(u16::to_le_bytes);
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(units).collect();
    let with = Filter {
        offer: MAPI,
        urls: URLS,
        is_back_end: &is_back_end,
    };

    let out = filter(&wide, &with).unwrap();

    assert_eq!(String::from_utf8(out).unwrap(), filtered(EVERYTHING, MAPI));
}

proptest! {
    #[test]
    fn an_answer_of_any_blocks_stays_xml_and_keeps_no_back_end(
        kinds in proptest::collection::vec(0usize..5, 0..8),
        mapi_http in proptest::option::of(1u32..3),
        outlook_anywhere: bool, rpc: bool, exhttp: bool, inside: bool,
    ) {
        let all: Vec<&str> = EVERYTHING.lines().filter(|line| line.starts_with("<Protocol")).collect();
        let chosen: String = kinds.iter().map(|kind| all[*kind]).collect();
        let others: Vec<&str> = EVERYTHING.lines().filter(|line| !line.starts_with("<Protocol")).collect();
        let answer = others.join("\n").replace("</Account>", &format!("{chosen}</Account>"));
        let reach = if inside { Reach::Internal } else { Reach::Everywhere };

        let out = filtered(&answer, Offer { mapi_http, outlook_anywhere, rpc, reach, exhttp });

        prop_assert!(!out.to_ascii_lowercase().contains("mbx1"));
        prop_assert!(!inside || !out.contains("outside"));
        prop_assert!(blocks(&out).len() <= kinds.len());
        // Done twice is done once.
        prop_assert_eq!(filtered(&out, Offer { mapi_http, outlook_anywhere, rpc, reach, exhttp }), out);
    }

    #[test]
    fn any_bytes_are_filtered_without_a_panic(answer in proptest::collection::vec(any::<u8>(), 0..300)) {
        let with = Filter { offer: MAPI, urls: URLS, is_back_end: &is_back_end };
        let _filtered = filter(&answer, &with);
    }
}
