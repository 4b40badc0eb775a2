//! Tables: their definitions, what is known of each, and the open database that all further rooms take.
//!
//! May import `store`.
//!
//! | file | what it does |
//! |---|---|
//! | `carried` | what was carried out of the decisions that applications wrote in SQL |
//! | `coding` | the memory in which frames are coded by column |
//! | `columns` | sets of columns |
//! | `def` | what a table is: its definition |
//! | `schema` | definitions read from the schema of a database |
//! | `entries` | the entries of the database's schema, found by name |
//! | `indexes` | UNIQUE indexes that no definition has |
//! | `encoding` | definitions as the log carries them |
//! | `ddl` | definitions made into SQL |
//! | `keyless` | tables without any key |
//! | `known` | what is known of a tracked table, and of a definition in the log |
//! | `limits` | how many tables and definitions are taken in from one device |
//! | `left` | devices that were left for another identity |
//! | `large` | large values of rows, read and copied piece by piece |
//! | `row_hash` | rows hashed value by value |
//! | `opened` | frames of the log that were opened last |
//! | `probe` | what SQLite says about the application's triggers |
//! | `fresh` | rows that no trigger has recorded |
//! | `stretch` | the heads of rows with consecutive keys, as one entry |
//! | `replica` | the open database of this device |
//! | `catalog` | the known tables, kept in step with the file |
//! | `declared` | the declarations of a table that are not superseded |
//! | `dropped` | columns that a person has dropped for all devices |
//! | `renamed` | columns that were renamed |
//! | `route` | the ways by which frames come here |
//! | `shapes` | what a table is on other devices |
//! | `trial` | what a table's own rules say of a row |

pub(crate) mod carried;
pub(crate) mod catalog;
pub(crate) mod coding;
pub(crate) mod columns;
pub(crate) mod ddl;
pub(crate) mod declared;
pub(crate) mod def;
pub(crate) mod dropped;
mod encoding;
pub(crate) mod entries;
pub(crate) mod fresh;
pub(crate) mod indexes;
pub(crate) mod keyless;
pub(crate) mod known;
pub(crate) mod large;
mod left;
pub(crate) mod limits;
pub(crate) mod opened;
pub(crate) mod probe;
pub(crate) mod renamed;
pub(crate) mod replica;
pub(crate) mod route;
pub(crate) mod row_hash;
mod schema;
pub(crate) mod shapes;
pub(crate) mod stretch;
pub(crate) mod trial;
