//! Frames that no honest seal makes, signed as their authors would sign them: of random flags, contexts, definitions,
//! ops and values.
#![allow(dead_code)] // Each test uses a part of it.

use packmule::Engine;
use packmule::core::model::{Big, DeviceId, Stream, Value};
use packmule::core::wire::{
    Block, Chain, Checkpoint, Column, ColumnMerge, DefId, DefReader, DefWriter, ForeignKey, Frame,
    FrameFlags, FrameWriter, GroupDigest, GroupStart, KeptRun, Merge, Named, OpHead, OpKind, Ops, Policy,
    RecordKind, Rows, Section, Shape, Span, put,
};

use crate::bundles::{self, Record};
use crate::common::{Random, whole_bundle};

/// A definition in the log.
#[derive(Clone)]
pub struct Def {
    pub id: DefId,
    pub bytes: Vec<u8>,
    pub keys: Vec<bool>,
    /// The declared type of each column.
    types: Vec<String>,
    /// A delete carries the row's last values.
    images: bool,
}

impl Def {
    pub fn of(bytes: &[u8]) -> Self {
        let mut reader = DefReader::new(bytes).unwrap();
        let columns: Vec<Column<'_>> = (0..reader.head.columns).map(|_| reader.item().unwrap()).collect();
        let types = columns.iter().map(|c| c.decl_type.to_owned()).collect();
        let keys = columns.iter().map(|c| c.key > 0).collect();
        let images =
            reader.head.merge == Merge::Cell || columns.iter().any(|c| c.merge == ColumnMerge::Counter);
        Self { id: DefId::of(bytes), bytes: bytes.to_vec(), keys, types, images }
    }
}

/// Whoever has a device's key, and goes on after what the device has sealed.
pub struct Insider {
    pub id: DeviceId,
    key: ed25519_compact::SecretKey,
    before: Vec<Record>,
    pub seq: u64,
    chain: Chain,
}

impl Insider {
    /// Has the key of this device, and the definitions that it has sealed.
    pub fn of(engine: &mut Engine) -> (Self, Vec<Def>) {
        let all = bundles::records(&whole_bundle(engine));
        let id = engine.identity().id;
        let keep = |kind: &RecordKind| matches!(kind, RecordKind::Header | RecordKind::Certificate);
        let before = all.iter().filter(|(kind, _)| keep(kind)).cloned().collect();
        let key = bundles::key_of(engine);
        let public: [u8; 32] = *key.public_key();
        let mut insider = Self { id, key, before, seq: 0, chain: Chain::start(&public, Stream::Shared) };
        let (mut digest, mut own, mut defs) = (GroupDigest::default(), false, Vec::new());
        for (kind, body) in &all {
            match kind {
                RecordKind::Section => {
                    let section: Section = packmule::core::wire::take(&mut &body[..]).unwrap();
                    own = section.author == id && section.stream == Stream::Shared;
                }
                RecordKind::Frame => {
                    digest.add(body);
                    defs.extend(defs_of(body));
                }
                RecordKind::Checkpoint => {
                    let group = std::mem::take(&mut digest).finish();
                    if own {
                        insider.chain = insider.chain.after(&group);
                        insider.seq = Checkpoint::decode(body).unwrap().last;
                    }
                }
                _ => {}
            }
        }
        (insider, defs)
    }

    /// Signs a group of one frame, and goes on after it. Returns it as a bundle.
    pub fn sign(&mut self, body: Vec<u8>) -> Vec<u8> {
        self.seq += 1;
        let group = (self.id, Stream::Shared, self.seq);
        let (checkpoint, end) = bundles::checkpoint(&self.key, group, self.chain, &body);
        self.chain = end;
        let mut buf = [0; 64];
        let section = Section { author: self.id, stream: Stream::Shared };
        let len = put(&mut buf, &section).unwrap();
        let mut records = self.before.clone();
        records.push((RecordKind::Section, buf[..len].to_vec()));
        records.push((RecordKind::Frame, body));
        records.push(checkpoint);
        bundles::join(&records)
    }
}

/// The definitions in a frame, up to its first rows.
fn defs_of(body: &[u8]) -> Vec<Def> {
    let body = bundles::plain(body);
    let frame = Frame::parse(&body).unwrap();
    let (mut blocks, mut defs) = (frame.blocks(), Vec::new());
    while let Ok(Some(Block::Def(def))) = blocks.next_block() {
        defs.push(Def::of(def));
    }
    defs
}

/// Says what is in a frame, for whoever looks into a seed.
pub fn describe(body: &[u8], defs: &[Def]) -> String {
    let body = bundles::plain(body);
    let frame = Frame::parse(&body).unwrap();
    let mut text =
        format!("{:?} {:?} seen {:?}", frame.head, frame.group, frame.context().collect::<Vec<_>>());
    let mut blocks = frame.blocks();
    loop {
        match blocks.next_block() {
            Ok(Some(Block::Rows { def, body, offset })) => {
                let Some(known) = defs.iter().find(|known| known.id == def) else { break };
                let name = DefReader::new(&known.bytes).unwrap().head.name;
                let shape = Shape { keys: &known.keys };
                let mut ops = Ops::new(body, offset, shape);
                while let Some(op) = ops.next_op().unwrap() {
                    let values: Vec<_> = op.values(shape).collect();
                    text.push_str(&format!("\n    {name}: {:?} {values:?}", op.head));
                }
                blocks.resume(ops.rest());
            }
            Ok(Some(Block::Def(bytes))) => {
                let mut reader = DefReader::new(bytes).unwrap();
                text.push_str(&format!("\n    {:?}", reader.head));
                for _ in 0..reader.head.columns {
                    text.push_str(&format!("\n      {:?}", reader.item::<Column<'_>>().unwrap()));
                }
            }
            Ok(Some(Block::Keep(keep))) => {
                text.push_str(&format!("\n    keep {:?}", keep.collect::<Vec<_>>()))
            }
            Ok(Some(block)) => text.push_str(&format!("\n    {block:?}")),
            _ => break,
        }
    }
    text
}

/// What odd frames are about.
pub struct Scene<'a> {
    pub defs: &'a mut Vec<Def>,
    /// The devices, each with how many frames there are of it.
    pub devices: &'a [(DeviceId, u64)],
    pub lamport: u64,
    pub wall: i64,
    /// Sound frames are ordinary ones and verdicts alone.
    pub verdicts: bool,
}

/// Makes the next frame of a stream.
pub fn odd_frame(random: &mut Random, seq: u64, own: DeviceId, scene: &mut Scene<'_>) -> Vec<u8> {
    let mut context: Vec<(Named, u64)> = Vec::new();
    for (device, frames) in scene.devices {
        if *device != own && random.chance(40) {
            let seen = if random.chance(90) { *frames } else { random.below(frames + 2) };
            context.push((Named::Id(*device), seen));
        }
    }
    scene.lamport += 1;
    let lamport = if random.chance(90) { scene.lamport } else { *random.pick(&[0, 1, 7, 1 << 62]) };
    let wall = if random.chance(80) {
        scene.wall + random.below(5) as i64
    } else {
        *random.pick(&[i64::MIN, -1, i64::MAX])
    };
    let group = GroupStart { lamport, wall, pair: 0, context: &context };
    // Most frames are such as a seal might make, but for what they say: one op that nobody takes hides all others.
    let sound = random.chance(85);
    let all = [0, 0, 0, 4, 8, 2, 32, 16, 6, 10, 12, 34, 36, 40, 14, 62];
    let kinds: &[u8] = match (sound, scene.verdicts) {
        (true, true) => &[0, 8, 8],
        (true, false) => &all[..7],
        (false, _) => &all,
    };
    let flags = *random.pick(kinds);
    let mut buf = vec![0; 60_000];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags(flags), seq, Some(group)).unwrap();
    if random.chance(7) {
        let def = odd_def(random, scene.defs);
        writer.def(&def.bytes).unwrap();
        scene.defs.push(def);
    }
    if flags & 8 != 0 || (!sound && random.chance(20)) {
        odd_keep(random, &mut writer, scene.devices);
    }
    let (mut rows, mut has_span) = (Vec::new(), false);
    for _ in 0..1 + random.below(4) {
        let def = random.pick(scene.defs).clone();
        match if sound { 4 } else { random.below(20) } {
            0 => _ = writer.piece(random.below(2) as u32, &[7; 5]).unwrap(),
            1 | 4 if flags & 32 != 0 && (!sound || !has_span && random.chance(25)) => {
                has_span = true;
                writer.span(&Span { def: def.id, from: &[], to: &[] }).unwrap()
            }
            2 => writer.retire(random.pick(scene.devices).0).unwrap(),
            3 => writer.came_back(random.pick(scene.devices).0).unwrap(),
            _ => odd_op(random, &mut writer, &def, (flags, sound), &mut rows),
        }
    }
    writer.finish().to_vec()
}

/// Writes which versions stay, of rows that follow.
fn odd_keep(random: &mut Random, writer: &mut FrameWriter<'_>, devices: &[(DeviceId, u64)]) {
    let runs: Vec<KeptRun> = (0..random.below(3))
        .map(|_| {
            let (device, frames) = *random.pick(devices);
            let first = 1 + random.below(frames + 1);
            KeptRun { device, first, last: first + random.below(4) }
        })
        .collect();
    writer.keep(&runs).unwrap();
}

fn odd_op(
    random: &mut Random,
    writer: &mut FrameWriter<'_>,
    def: &Def,
    (flags, sound): (u8, bool),
    rows: &mut Vec<Vec<Value<'static>>>,
) {
    let kinds: &[OpKind] = if sound && flags & (8 | 32) != 0 {
        &[OpKind::Insert, OpKind::Delete, OpKind::Keep]
    } else if flags & (8 | 32) != 0 || (!sound && random.chance(10)) {
        &[OpKind::Insert, OpKind::Update, OpKind::Delete, OpKind::Keep]
    } else {
        &[OpKind::Insert, OpKind::Update, OpKind::Update, OpKind::Delete]
    };
    let kind = *random.pick(kinds);
    let mask: Vec<u8> = (0..def.keys.len().div_ceil(8))
        .map(|at| {
            let used = (def.keys.len() - at * 8).min(8);
            random.next() as u8 & (0xff_u16 >> (8 - used)) as u8
        })
        .collect();
    let plain = kind == OpKind::Keep;
    let part = !plain && random.chance(50) && !(sound && kind == OpKind::Insert && flags & (2 | 8) == 0);
    let head = OpHead {
        kind,
        claim: (!plain && random.chance(20)).then(|| random.below(9)),
        columns: part.then_some(&mask[..]),
        wall: (!plain && random.chance(20)).then(|| *random.pick(&[i64::MIN, 0, 5, i64::MAX])),
        image: kind == OpKind::Delete && random.chance(50) && (def.images || !sound),
    };
    let carried = |at: usize| {
        def.keys[at]
            || (kind != OpKind::Keep
                && (kind != OpKind::Delete || head.image)
                && head.columns.is_none_or(|mask| mask[at / 8] >> (at % 8) & 1 == 1))
    };
    let columns: Vec<usize> = (0..def.keys.len()).filter(|at| carried(*at)).collect();
    let values: Vec<Value<'static>> = columns.iter().map(|at| odd_value(random, def, *at, sound)).collect();
    let key: Vec<_> = columns.iter().zip(&values).filter(|(at, _)| def.keys[**at]).map(|(_, v)| *v).collect();
    if sound && rows.contains(&key) {
        return; // A frame has a row once.
    }
    rows.push(key);
    writer.op(def.id, &head, values.into_iter()).unwrap();
}

/// Values of which each is what some column stores.
const PLAIN: [Value<'static>; 4] = [Value::Int(0), Value::Int(1), Value::Int(5), Value::Int(i64::MAX)];
const TEXTS: [&[u8]; 6] = [b"", b"a", b"A", b"b", b"b ", b"\xff\0"];
const NUMBERS: [f64; 5] = [0.0, 2.5, 5.0, 1e300, f64::INFINITY];

fn odd_value(random: &mut Random, def: &Def, at: usize, sound: bool) -> Value<'static> {
    let of_type = sound || random.chance(80);
    match &*def.types[at] {
        "INTEGER" if def.keys[at] && of_type => return Value::Int(1 + random.below(4) as i64),
        "TEXT" if def.keys[at] && of_type => return Value::Text(random.pick::<&[u8]>(&TEXTS[1..5])),
        _ if of_type && random.chance(20) && !def.keys[at] => return Value::Null,
        "INTEGER" if of_type => return *random.pick(&PLAIN),
        "TEXT" if of_type => return Value::Text(random.pick::<&[u8]>(&TEXTS)),
        "REAL" if of_type => return Value::real(*random.pick(&NUMBERS)),
        _ => {}
    }
    let all = [
        PLAIN[1],
        PLAIN[2],
        Value::Text(b"x"),
        Value::Text(b"5"),
        Value::Blob(b"5"),
        Value::real(2.5),
        Value::real(-0.0),
        Value::real(5.0),
        Value::Int(i64::MIN),
        Value::real(f64::NAN),
        Value::Null,
        Value::Text(b" 5.0 "),
        Value::Text(b"1e3"),
        Value::Big(Big { text: true, number: 0, back: 0, len: 5, sha256: [1; 32] }),
        Value::Big(Big { text: false, number: 1, back: 0, len: 0, sha256: [2; 32] }),
    ];
    *random.pick(if sound { &all[..9] } else { &all })
}

/// A definition like one that is there, with something else in it.
pub fn odd_def(random: &mut Random, defs: &[Def]) -> Def {
    let old = random.pick(defs).clone();
    let mut reader = DefReader::new(&old.bytes).unwrap();
    let mut head = reader.head;
    let mut columns: Vec<Column<'_>> = (0..head.columns).map(|_| reader.item().unwrap()).collect();
    let at = random.below(columns.len() as u64) as usize;
    match random.below(8) {
        0 => columns[at].decl_type = *random.pick(&["TEXT", "INTEGER", "REAL", "BLOB", "", "x); DROP"]),
        1 => head.merge = if head.merge == Merge::Row { Merge::Cell } else { Merge::Row },
        2 => head.policy = if head.policy == Policy::Manual { Policy::Lww } else { Policy::Manual },
        3 => columns[at].not_null ^= true,
        4 => columns[at].key = random.below(3) as u16,
        5 => head.rows = *random.pick(&[Rows::Rowid, Rows::WithoutRowid, Rows::Keyless]),
        6 => {
            columns.push(Column {
                name: random.pick::<&str>(&["extra", "other", "e\"x"]),
                key: 0,
                ..columns[at]
            });
            head.columns += 1;
        }
        _ => {
            columns[at].default =
                packmule::core::wire::Default::Literal(Value::real(*random.pick(&[1.5, f64::NAN])))
        }
    }
    let mut buf = vec![0; 10_000];
    let mut writer = DefWriter::new(&mut buf, &head).unwrap();
    columns.iter().for_each(|column| writer.item(column).unwrap());
    for _ in 0..head.uniques {
        let n: u16 = reader.item().unwrap();
        writer.item(&n).unwrap();
        (0..n).for_each(|_| writer.item(&reader.item::<u16>().unwrap()).unwrap());
    }
    for _ in 0..head.foreign_keys {
        let key: ForeignKey<'_> = reader.item().unwrap();
        writer.item(&key).unwrap();
        (0..key.columns).for_each(|_| writer.item(&reader.item::<(&str, &str)>().unwrap()).unwrap());
    }
    Def::of(writer.finish())
}
