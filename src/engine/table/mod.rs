//! Tables: their definitions, what is known of each, and the open database that all further rooms take.
//!
//! May import `store`.
//!
//! | file | what it does |
//! |---|---|
//! | `columns` | sets of columns |
//! | `def` | definitions, read from the database and carried as data |
//! | `ddl` | definitions made into SQL |
//! | `known` | what is known of a tracked table, and of a definition in the log |
//! | `probe` | what SQLite says about the application's triggers |
//! | `replica` | the open database of this device |
//! | `catalog` | the known tables, kept in step with the file |
//! | `declared` | what devices declare of a table |

pub(crate) mod catalog;
pub(crate) mod columns;
pub(crate) mod ddl;
pub(crate) mod declared;
pub(crate) mod def;
pub(crate) mod known;
pub(crate) mod probe;
pub(crate) mod replica;
