use super::super::{Client, Reach};
use super::*;
use proptest::prelude::*;

const ASKED: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request><EMailAddress>User1@contoso.test</EMailAddress>
  <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema></Request>
</Autodiscover>"#;

const ID: &str = "00000000-0000-4000-8000-000000000001@contoso.test";

fn answer(offer: Offer) -> String {
    Answer {
        mailbox: Mailbox {
            id: ID,
            address: "user1@contoso.test",
            display_name: "Anna & Otto",
            legacy_dn: Some("/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user1"),
        },
        offer,
        urls: Urls {
            internal: "https://mail.contoso.test/mapi",
            external: Some("https://outside.contoso.test/mapi"),
        },
        services: Services {
            ews: Some("https://mail.contoso.test/ews/exchange.asmx"),
            oab: None,
        },
        auth_package: "Basic",
        server_version: None,
    }
    .write()
}

fn offer() -> Offer {
    Offer {
        mapi_http: Some(1),
        outlook_anywhere: true,
        rpc: false,
        reach: Reach::Everywhere,
        exhttp: true,
    }
}

fn types(answer: &str) -> Vec<String> {
    let text = xml::text(answer.as_bytes(), 1 << 20).unwrap();
    let tree = Tree::read(&text).unwrap();
    let account = tree.find(&["Autodiscover", "Response", "Account"]).unwrap();
    let blocks = tree
        .children(account)
        .filter(|child| tree.is(*child, "Protocol"));
    blocks
        .map(|block| {
            let attribute = tree
                .at(block)
                .unwrap()
                .attributes
                .first()
                .map(|(_, value)| value.clone());
            attribute
                .or(tree.value(block, "Type").map(str::to_owned))
                .unwrap()
        })
        .collect()
}

#[test]
fn a_request_is_read_in_any_case() {
    let upper = ASKED
        .replace("EMailAddress", "EMAILADDRESS")
        .replace("<Request>", "<REQUEST>")
        .replace("</Request>", "</REQUEST>");
    for asked in [ASKED, upper.as_str()] {
        let read = PoxRequest::read(asked.as_bytes()).unwrap();
        assert_eq!(read.address.as_deref(), Some("user1@contoso.test"));
        assert!(read.is_for_outlook);
    }
    let mobile = ASKED.replace(
        "outlook/responseschema/2006a",
        "mobilesync/responseschema/2006",
    );
    assert!(!PoxRequest::read(mobile.as_bytes()).unwrap().is_for_outlook);
    let nameless = PoxRequest::read(b"<Autodiscover><Request><EMailAddress> </EMailAddress><LegacyDN>/o=a</LegacyDN></Request></Autodiscover>").unwrap();
    assert_eq!(
        (nameless.address, nameless.legacy_dn.as_deref()),
        (None, Some("/o=a"))
    );
    assert_eq!(
        PoxRequest::read(b"<Other/>"),
        Err(Wrong::Other("an Autodiscover request"))
    );
}

#[test]
fn a_capable_client_is_told_both_urls_of_both_endpoints() {
    let written = answer(offer());

    assert_eq!(types(&written), ["mapiHttp", "EXHTTP", "EXHTTP"]);
    for url in [
        "<Protocol Type=\"mapiHttp\" Version=\"1\"><MailStore><InternalUrl>https://mail.contoso.test/mapi/emsmdb/?MailboxId=00000000-0000-4000-8000-000000000001@contoso.test</InternalUrl><ExternalUrl>https://outside.contoso.test/mapi/emsmdb/?MailboxId=",
        "<AddressBook><InternalUrl>https://mail.contoso.test/mapi/nspi/?MailboxId=",
        "<DisplayName>Anna &amp; Otto</DisplayName>",
        "<EwsUrl>https://mail.contoso.test/ews/exchange.asmx</EwsUrl>",
    ] {
        assert!(written.contains(url), "{url} in {written}");
    }
}

#[test]
fn a_client_inside_alone_is_told_no_external_url() {
    let reach = Reach::Internal;
    let written = answer(Offer { reach, ..offer() });
    assert!(!written.contains("ExternalUrl") && !written.contains("outside.contoso.test"));
    let mapi_http = None;
    let written = answer(Offer {
        reach,
        mapi_http,
        ..offer()
    });
    assert!(
        !written.contains("outside.contoso.test")
            && written.contains("<Type>EXPR</Type><Server>mail.contoso.test</Server>")
    );
}

#[test]
fn an_incapable_client_is_told_outlook_anywhere() {
    let Client { reads_exhttp, .. } = Client::read(None, None);
    let written = answer(Offer {
        mapi_http: None,
        exhttp: reads_exhttp,
        ..offer()
    });

    assert_eq!(types(&written), ["EXCH", "EXPR"]);
    assert!(
        written.contains("<Type>EXPR</Type><Server>outside.contoso.test</Server><SSL>On</SSL>")
    );
    assert!(written.contains(
        "<ServerDN>/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Configuration/cn=Servers/cn=00000000-"
    ));
    let nothing = Offer {
        mapi_http: None,
        exhttp: false,
        outlook_anywhere: false,
        ..offer()
    };
    assert_eq!(types(&answer(nothing)), Vec::<String>::new());
}

#[test]
fn what_cannot_be_answered_has_a_number() {
    let written = fault(Fault::InvalidRequest, "12:00:00.0000000", 7);
    assert!(written.contains("<Error Time=\"12:00:00.0000000\" Id=\"7\"><ErrorCode>600</ErrorCode><Message>Invalid Request</Message><DebugData /></Error>"));
    assert!(fault(Fault::NoProvider, "", 0).contains("<ErrorCode>601</ErrorCode>"));
    let there = redirect("https://autodiscover.fabrikam.test/autodiscover/autodiscover.xml");
    assert!(
        there.contains(
            "<Action>redirectUrl</Action><RedirectUrl>https://autodiscover.fabrikam.test/"
        )
    );
}

proptest! {
    #[test]
    fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _read = PoxRequest::read(&body);
    }

    #[test]
    fn whatever_a_mailbox_is_called_the_answer_stays_xml(name in "\\PC{0,40}", dn in "\\PC{0,40}") {
        let written = Answer {
            mailbox: Mailbox { id: ID, address: &name, display_name: &name, legacy_dn: Some(&dn) },
            offer: Offer { mapi_http: None, ..offer() },
            urls: Urls { internal: &name, external: Some(&dn) },
            services: Services { ews: Some(&name), oab: Some(&dn) },
            auth_package: "Ntlm",
            server_version: None,
        }.write();
        prop_assert_eq!(types(&written), ["EXCH", "EXPR", "EXHTTP"][..types(&written).len()].to_vec());
    }
}
