//! A client that others wrote: impacket's RPC over HTTP.

use crate::house::House;
use crate::python::{nspi_bind, python};
use mapigate::lab::site::{HOST, PASSWORD, mailbox, user};
use std::path::Path;
use std::process::Output;

async fn bind(house: &House, python: &Path, number: usize, more: [&str; 2]) -> Output {
    let [password, scheme] = more;
    let port = house.target().unwrap().address.port().to_string();
    let words = [
        HOST,
        &port,
        &user(number),
        password,
        &mailbox(number),
        scheme,
    ];
    nspi_bind(python, &words).await
}

#[tokio::test]
async fn impackets_client_binds_the_address_book_through_mapigate() {
    let Some(python) = python().await else { return };
    let house = House::new().await;

    // By Basic, and by its own choice: it asks for NTLM first, is told Basic, and takes that.
    for (number, scheme) in [(1, "basic"), (2, "auto")] {
        let output = bind(&house, &python, number, [PASSWORD, scheme]).await;

        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{scheme}: {errors}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["scheme"], "Basic");
        assert_eq!(said["server"], "mapigate-lab-gal");
        assert_eq!((&said["bound"], &said["unbound"]), (&0.into(), &1.into()));
    }

    assert_eq!(house.servers[0].sessions_opened(), 2);
    assert_eq!(house.servers[1].heads().len(), 0);
}

#[tokio::test]
async fn impackets_client_is_refused_with_a_wrong_password_before_a_server_hears_of_it() {
    let Some(python) = python().await else { return };
    let house = House::new().await;

    let output = bind(&house, &python, 1, ["wrong", "basic"]).await;

    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("401"), "{errors}");
    house.nobody_was_reached();
}
