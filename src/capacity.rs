//! How large a site's front ends must be.
//!
//! Pure arithmetic. What users do ([`Rates`]) comes from a message profile or from a running site, what that costs
//! ([`Costs`]) from our own measurements or from the same site; [`Inputs::plan`] multiplies them. Whatever it is given,
//! no figure of a [`Plan`] is negative or not a number.

mod assumptions;
mod chart;
mod costs;
mod exposition;
mod observed;
mod plan;
mod rates;
mod rule;
mod sensitivity;
mod table;

pub use assumptions::{Assumption, Assumptions, UnknownAssumption};
pub use chart::svg;
pub use costs::{Costs, MEASURED, Measured, Memory};
pub use exposition::{Exposition, Sample};
pub use observed::{Observed, Reading, Unusable};
pub use plan::{Bandwidth, Choice, EachFrontEnd, FrontEnds, Inputs, Part, Plan, Rush};
pub use rates::{Class, LegBytes, Rates};
pub use rule::Rule;
pub use sensitivity::Sensitivity;
pub use table::text;

/// The nearest number that an amount can be: none below 0, none without end.
fn amount(number: f64) -> f64 {
    if number.is_nan() {
        0.0
    } else {
        number.clamp(0.0, AMOUNT_MAX)
    }
}

/// A part of a whole; 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        amount(part / whole)
    } else {
        0.0
    }
}

/// Above every amount that means something, and far enough from the end of numbers to be multiplied a few times.
const AMOUNT_MAX: f64 = 1e15;
