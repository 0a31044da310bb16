//! The lab by itself: what the other modules rely on.

use crate::lab::{Lab, NETBIOS, PASSWORD};
use std::process::Command;

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn a_user_made_for_a_test_gets_tickets_and_is_known_to_winbind() {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    let user = lab.user(PASSWORD);

    lab.log_on(&user.name, PASSWORD, &folder.path().join("tickets"));

    let account = format!("{NETBIOS}\\{}%{PASSWORD}", user.name);
    let winbind = Command::new("wbinfo").arg("-a").arg(account).output();
    assert!(winbind.unwrap().status.success());
}
