//! Schedules as data: made from a seed alone, so that steps can be left out of one.

pub mod folds;
pub mod run;
pub mod tables;

use crate::common::Random;
use crate::model::Rule;
use tables::TABLES;

/// What is done about a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Take,
    Set,
    Delete,
    KeepBoth,
}

/// Devices, bundles and conflicts are numbers modulo how many there are.
#[derive(Clone, Debug)]
pub enum Step {
    /// A statement of an application; `forced` is a row of these key literals that gets its key again.
    Write {
        d: usize,
        t: usize,
        sql: String,
        forced: Option<Vec<String>>,
        moves: bool,
    },
    Seal {
        d: usize,
    },
    Export {
        d: usize,
        to: usize,
        all: bool,
    },
    Import {
        d: usize,
        bundle: usize,
    },
    Resolve {
        d: usize,
        pick: usize,
        how: How,
        version: usize,
        column: usize,
        value: usize,
    },
    Reopen {
        d: usize,
    },
    /// The device's clock jumps.
    Clock {
        d: usize,
        ms: i64,
    },
    /// An application adds a column, and may fill it.
    AddColumn {
        d: usize,
        t: usize,
        fill: bool,
        command: bool,
    },
    /// An application makes a UNIQUE of a table that had none.
    MakeUnique {
        d: usize,
        t: usize,
    },
    /// All get all that there is.
    Meet,
    Compact {
        d: usize,
    },
    /// Another one is lost, and this device says so.
    Retire {
        d: usize,
        who: usize,
    },
    /// A device is cloned, and both write these.
    Clone {
        d: usize,
        writes: Vec<Step>,
    },
    /// A newcomer starts from a snapshot of this device, and makes itself known.
    Join {
        d: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub devices: usize,
    /// Numbers in `TABLES`.
    pub tables: Vec<usize>,
    pub steps: Vec<Step>,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let devices = 2 + random.below(3) as usize;
        // Few tables, so that writes meet. One that refers to another has nothing to refer to without it.
        let mut tables: Vec<usize> = Vec::new();
        for _ in 0..2 {
            let t = random.below(TABLES.len() as u64) as usize;
            tables.push(t);
            if let Some((_, parent, _)) = TABLES[t].0.foreign {
                tables.extend(TABLES.iter().position(|(table, _)| table.name == parent));
            }
        }
        tables.sort_unstable();
        tables.dedup();
        let mut steps = Vec::new();
        if random.chance(40) {
            // All hear of all, so that they may compact.
            steps.push(Step::Meet);
        }
        for _ in 0..12 + random.below(60) {
            let step = step(&mut random, &tables);
            let all_have_all = matches!(step, Step::Meet);
            steps.push(step);
            if all_have_all && random.chance(50) {
                steps.push(Step::Compact { d: random.below(60) as usize });
            }
        }
        Self { seed, devices, tables, steps }
    }
}

fn step(random: &mut Random, tables: &[usize]) -> Step {
    // A number that is a device's as long as there is any, also of those that join later.
    let d = random.below(60) as usize;
    let number = |random: &mut Random| random.below(1000) as usize;
    match random.below(100) {
        0..=42 => write(random, d, tables),
        43..=44 => Step::Meet,
        45..=48 => Step::Compact { d },
        49..=51 => Step::Seal { d },
        52..=62 => Step::Export { d, to: number(random), all: random.chance(50) },
        63..=82 => Step::Import { d, bundle: number(random) },
        83..=90 => Step::Resolve {
            d,
            pick: number(random),
            how: *random.pick(&[How::Take, How::Take, How::Set, How::Delete, How::KeepBoth]),
            version: number(random),
            column: number(random),
            value: number(random),
        },
        91 => Step::Clone { d, writes: (0..4).map(|_| write(random, d, tables)).collect() },
        92 => Step::Reopen { d },
        93 => Step::MakeUnique { d, t: random.below(tables.len() as u64) as usize },
        94 => match random.below(3) {
            0 => Step::Retire { d, who: number(random) },
            _ => Step::Join { d },
        },
        95..=96 => Step::Clock {
            d,
            ms: *random.pick(&[1, 1000, 60_000, -60_000, -3_600_000, 2_000_000_000_000, -1_800_000_000_000]),
        },
        _ => {
            let t = random.below(tables.len() as u64) as usize;
            Step::AddColumn { d, t, fill: random.chance(50), command: random.chance(30) }
        }
    }
}

fn write(random: &mut Random, d: usize, tables: &[usize]) -> Step {
    let t = random.below(tables.len() as u64) as usize;
    let (table, keys) = &TABLES[tables[t]];
    let key_of =
        |random: &mut Random| keys.iter().map(|pool| random.pick(pool).to_string()).collect::<Vec<_>>();
    let key = key_of(random);
    let rest: Vec<String> = table.columns.iter().map(|(_, pool)| random.pick(pool).to_string()).collect();
    let by_key = |key: &[String]| {
        table.keys.iter().zip(key).map(|(c, v)| format!("{c} = {v}")).collect::<Vec<_>>().join(" AND ")
    };
    let names: Vec<&str> = table.keys.iter().copied().chain(table.columns.iter().map(|(c, _)| *c)).collect();
    let values = key.iter().chain(&rest).cloned().collect::<Vec<_>>().join(", ");
    let insert = format!("INTO {} ({}) VALUES ({values})", table.name, names.join(", "));
    let at = random.below(rest.len() as u64) as usize;
    let (column, mut value) = (table.columns[at].0, rest[at].clone());
    if table.rule(column) == Rule::Counter && random.chance(80) {
        value = format!("{column} + {}", random.pick(&["1", "2", "-1"]));
    }
    let mut forced = None;
    let mut moves = false;
    let sql = match random.below(12) {
        0..=2 => format!("INSERT {insert}"),
        3 => {
            forced = Some(key.clone());
            format!("INSERT OR REPLACE {insert}")
        }
        4..=6 => format!("UPDATE {} SET {column} = {value} WHERE {}", table.name, by_key(&key)),
        7 => {
            let other = key_of(random);
            let or = random.pick(&["", "OR REPLACE"]);
            let sets: Vec<_> = table.keys.iter().zip(&other).map(|(c, v)| format!("{c} = {v}")).collect();
            forced = Some(other);
            moves = true;
            format!("UPDATE {or} {} SET {} WHERE {}", table.name, sets.join(", "), by_key(&key))
        }
        8 => format!("UPDATE OR REPLACE {} SET {column} = {value} WHERE {}", table.name, by_key(&key)),
        9 => format!("DELETE FROM {} WHERE {}", table.name, by_key(&key)),
        10 if !table.unique_columns.is_empty() && random.chance(70) => {
            // Two rows change places in a unique column.
            let c = table.unique_columns[0];
            let name = table.name;
            let other = key_of(random);
            if other == key {
                return Step::Seal { d };
            }
            let [a, b] = [other, key].map(|key| by_key(&key));
            format!(
                "CREATE TEMP TABLE swap AS SELECT (SELECT {c} FROM {name} WHERE {a}) a, (SELECT {c} FROM {name} WHERE {b}) b;
                 UPDATE {name} SET {c} = NULL WHERE {a};
                 UPDATE {name} SET {c} = (SELECT a FROM swap) WHERE {b};
                 UPDATE {name} SET {c} = (SELECT b FROM swap) WHERE {a};
                 DROP TABLE swap"
            )
        }
        10 => match table.added {
            Some((c, _, _, pool)) => {
                format!("UPDATE {} SET {c} = {} WHERE {}", table.name, random.pick(pool), by_key(&key))
            }
            None => format!("UPDATE {} SET {column} = {value}", table.name),
        },
        _ => format!(
            "INSERT {insert} ON CONFLICT ({}) DO UPDATE SET {column} = excluded.{column}",
            table.keys.join(", ")
        ),
    };
    Step::Write { d, t, sql, forced, moves }
}

/// A literal as `common::dump` writes it.
pub fn render(literal: &str) -> String {
    if let Some(hex) = literal.strip_prefix("x'") {
        let bytes: Vec<u8> = hex
            .trim_end_matches('\'')
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        return format!("{bytes:02x?}");
    }
    if literal.starts_with('\'') {
        return format!("{:?}", literal.trim_matches('\''));
    }
    if literal.contains('.') {
        return format!("{:?}r", literal.parse::<f64>().unwrap());
    }
    literal.to_owned()
}

/// The value of a literal.
pub fn value(literal: &str) -> packmule::OwnedValue {
    use packmule::OwnedValue;
    let shown = render(literal);
    if shown == "NULL" {
        OwnedValue::Null
    } else if literal.starts_with('\'') {
        OwnedValue::Text(literal.trim_matches('\'').as_bytes().to_vec())
    } else if let Some(hex) = literal.strip_prefix("x'") {
        let hex = hex.trim_end_matches('\'').as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        OwnedValue::Blob(hex.chunks(2).map(byte).collect())
    } else if literal.contains('.') {
        OwnedValue::Real(literal.parse().unwrap())
    } else {
        OwnedValue::Int(literal.parse().unwrap())
    }
}

/// A value as `common::dump` writes it.
pub fn show(value: &packmule::OwnedValue) -> String {
    use packmule::OwnedValue;
    match value {
        OwnedValue::Null => "NULL".into(),
        OwnedValue::Int(i) => i.to_string(),
        OwnedValue::Real(r) => format!("{r:?}r"),
        OwnedValue::Text(t) => format!("{:?}", String::from_utf8_lossy(t)),
        OwnedValue::Blob(b) => format!("{b:02x?}"),
        large @ OwnedValue::Large { .. } => large.to_string(),
    }
}
