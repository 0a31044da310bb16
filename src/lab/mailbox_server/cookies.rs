//! Cookies as each flavour makes them.

use crate::lab::guid;
use crate::mapi::Flavour;

/// gromox: 32 letters and digits. Exchange: base64 behind a fixed beginning, `=` and `+` included.
pub(super) fn new_cookie(flavour: Flavour) -> String {
    match flavour {
        Flavour::Gromox => (0..32)
            .map(|_| fastrand::alphanumeric().to_ascii_lowercase())
            .collect(),
        Flavour::Exchange => {
            use base64::Engine as _;
            let bits = fastrand::u128(..).to_le_bytes();
            let text = base64::engine::general_purpose::STANDARD.encode(bits);
            format!("{EXCHANGE_BEGINNING}{text}")
        }
    }
}

const EXCHANGE_BEGINNING: &str = "MAPIAAAA+";

pub(super) fn new_sequence(flavour: Flavour) -> String {
    match flavour {
        Flavour::Gromox => guid(),
        Flavour::Exchange => format!("{}-{:016x}=", fastrand::u16(..), fastrand::u64(..)),
    }
}

/// gromox looks every value up; Exchange tells a value it cannot have issued from one that is gone.
pub(super) fn is_well_formed(flavour: Flavour, cookie: &str) -> bool {
    flavour == Flavour::Gromox
        || (cookie.len() == EXCHANGE_BEGINNING.len() + 24 && cookie.starts_with(EXCHANGE_BEGINNING))
}
