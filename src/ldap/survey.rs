//! What an administrator wants to know of a directory service before relying on it.

use super::book::Book;
use super::{Person, Trouble};
use crate::placement::Copies;
use std::sync::Arc;

/// What a directory service says of itself.
#[derive(Debug)]
pub struct Survey {
    /// Somebody it knows, where it knows anybody.
    pub somebody: Option<Person>,
    /// Databases and the servers that hold their copies. Empty where the directory does not know, as without
    /// Exchange.
    pub copies: Copies,
}

impl Book {
    /// Asks the directory whether it answers, whom it knows, and which databases there are.
    ///
    /// # Errors
    /// It cannot be asked; [`super::Client::states`] says more.
    pub async fn survey(self: &Arc<Self>) -> Result<Survey, Trouble> {
        let anybody = self
            .client()
            .search(self.settings().people.clone(), self.attributes());
        let somebody = anybody.await?.into_iter().next();
        Ok(Survey {
            somebody: somebody.map(|entry| self.person(&entry)),
            copies: self.copies().await?,
        })
    }
}
