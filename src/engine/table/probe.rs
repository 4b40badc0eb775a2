//! What SQLite says about the application's triggers: which tables they write to, and what they read.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::engine::error::Result;
use crate::engine::table::known::State;

/// The names of our copies of triggers begin so; a number follows.
pub(crate) const PREFIX: &str = "_pm_local_";

/// What SQLite says about a trigger while it prepares it: a table that it writes to, a column that it reads.
#[derive(Debug)]
pub(crate) enum Access {
    Write(String),
    Read(String, String),
}

/// Records what SQLite's authorizer says, while somebody listens.
#[derive(Default)]
pub(crate) struct Probe {
    on: AtomicBool,
    heard: Mutex<Vec<Access>>,
}

impl Probe {
    /// Makes the probe of a connection. It allows everything.
    pub(crate) fn of(db: &mut Connection) -> Result<Arc<Self>> {
        let probe = Arc::new(Self::default());
        let listener = probe.clone();
        db.authorizer(Some(move |context: AuthContext<'_>| {
            if listener.on.load(Ordering::Relaxed) {
                listener.hear(&context);
            }
            Authorization::Allow
        }))?;
        Ok(probe)
    }

    /// Records an access of one of our copies.
    fn hear(&self, context: &AuthContext<'_>) {
        if !context.accessor.is_some_and(|name| name.starts_with(PREFIX)) {
            return;
        }
        let access = match context.action {
            AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name } => Access::Write(table_name.to_ascii_lowercase()),
            AuthAction::Read { table_name, column_name } => {
                Access::Read(table_name.to_ascii_lowercase(), column_name.to_ascii_lowercase())
            }
            _ => return,
        };
        if let Ok(mut heard) = self.heard.lock() {
            heard.push(access);
        }
    }

    /// Runs `work`. Returns also what was recorded meanwhile.
    pub(crate) fn listen<R>(&self, work: impl FnOnce() -> R) -> (R, Vec<Access>) {
        self.on.store(true, Ordering::Relaxed);
        let result = work();
        self.on.store(false, Ordering::Relaxed);
        let heard = self.heard.lock().map(|mut heard| std::mem::take(&mut *heard)).unwrap_or_default();
        (result, heard)
    }
}

/// A trigger of the application that runs for rows of other devices.
#[derive(Clone)]
pub(crate) struct Local {
    /// The name of our copy, and the statement that makes it.
    pub copy: String,
    pub sql: String,
    /// Its name in the application's schema, and its table.
    pub name: String,
    pub table: String,
}

impl Local {
    /// Returns the statement that drops our copy.
    pub(crate) fn drop_sql(&self) -> String {
        format!("DROP TRIGGER IF EXISTS temp.{}", self.copy)
    }
}

/// The version of the schema and the state of each table, of which the triggers were looked up.
type FoundFor = (i64, Vec<(i64, State)>);

/// What runs for rows of a synced table.
#[derive(Default)]
pub(crate) struct On {
    /// Its triggers, among those found.
    pub own: Vec<usize>,
    /// The columns that these read.
    pub reads: HashSet<String>,
    /// Statements of these, or of what they run, may say what a violated constraint does.
    pub says_of_conflicts: bool,
}

/// The known triggers of the application.
#[derive(Default)]
pub(crate) struct Triggers {
    pub found_for: Option<FoundFor>,
    pub found: Vec<Local>,
    /// By synced table, what runs for its rows.
    pub on: HashMap<i64, On>,
    /// They were looked up in this transaction, and are in place.
    pub ready: bool,
    /// The application has none at all, in this transaction.
    pub has_none: bool,
    pub installed: bool,
}
