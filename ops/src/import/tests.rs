use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::wire::{decode, funnel};

/// Writes files into a folder of their own and imports that folder.
fn import_files(dataset: Dataset, files: &[(&str, &str)]) -> Result<(Vec<Value>, String)> {
    let folder = folder(files);
    import_paths(dataset, &[folder.path().into()])
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn topics(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["topic"].as_str().unwrap()).collect()
}

fn events(lines: &[Value]) -> Vec<(&str, i64)> {
    let events = lines.iter().filter(|line| line["topic"] == "events");
    events.map(|line| (line["type"].as_str().unwrap(), line["ts"].as_i64().unwrap())).collect()
}

/// A real data set, if it is there.
fn data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there (SLUICE_DATA names its folder)", path.display());
        return None;
    }
    Some(path)
}

const KUAIRAND_LOG: &str = "\
user_id,video_id,time_ms,is_click,is_like,long_view,duration_ms,is_profile_enter,tab
7,50,1650812741436,1,1,1,49866,1,1
8,51,1650812741000,0,0,0,11933,0,4
8,51,1650812741000,0,0,0,11933,0,4
7,52,1650812741436,0,1,0,,0,1
";

#[test]
fn kuairand_outcomes_follow_their_impression_in_order_and_refer_to_it() {
    let (lines, report) = import_files(Dataset::Kuairand, &[("log.csv", KUAIRAND_LOG)]).unwrap();
    let (early, late) = (1_650_812_741_000, 1_650_812_741_436);
    assert_eq!(
        events(&lines),
        [
            ("impression", early),
            ("impression", early),
            ("impression", late),
            ("click", late),
            ("long_view", late),
            ("like", late),
            ("profile_enter", late),
            ("impression", late),
            ("like", late),
        ]
    );
    assert_eq!(lines[0], lines[1], "a row twice is one event twice");
    assert_ne!(lines[2]["id"], lines[7]["id"]);
    let id = lines[2]["id"].as_str().unwrap();
    assert_eq!(
        lines[3],
        json!({"topic": "events", "type": "click", "id": format!("{id}/click"), "ts": late,
            "user": "7", "item": "50", "impression": id})
    );
    assert_eq!(
        lines[2],
        json!({"topic": "events", "type": "impression", "id": id, "ts": late, "user": "7",
            "item": "50", "surface": "1", "context": {"duration_ms": 49866}})
    );
    assert!(lines[7].get("context").is_none(), "what is missing is left out");
    assert!(report.contains("4 events impression\n"), "{report}");
    assert!(report.contains(" 0 rows left out\n"), "{report}");
}

#[test]
fn an_id_is_the_same_in_every_run_and_build() {
    let (lines, _) = import_files(Dataset::Kuairand, &[("log.csv", KUAIRAND_LOG)]).unwrap();
    let mut row = Vec::new();
    for value in ["8", "51", "1650812741000", "0", "0", "0", "11933", "0", "4"] {
        row.extend_from_slice(value.as_bytes());
        row.push(0x1f);
    }
    assert_eq!(lines[0]["id"], format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&row)));
}

#[test]
fn kuairand_features_stay_text_and_stand_before_the_events() {
    let videos = "\
video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag
50,9,NORMAL,2022-04-10,Web,,9.0,\"39,12\"
51,9,AD,2022-04-11,Web,5000.0,,
";
    let users = "\
user_id,user_active_degree,follow_user_num,fans_user_num_range,onehot_feat0,onehot_feat4
7,full_active,514,\"[100,1k)\",1,
";
    let files = [("a_log.csv", KUAIRAND_LOG), ("b_users.csv", users), ("c_videos.csv", videos)];
    let (lines, _) = import_files(Dataset::Kuairand, &files).unwrap();
    assert_eq!(topics(&lines)[..4], ["items", "items", "users", "events"]);
    let first = 1_650_812_741_000_i64;
    assert_eq!(
        lines[..3],
        [
            json!({"topic": "items", "item": "50", "ts": first, "features": {
                "category": "39", "tags": ["39", "12"], "upload_ts": 1_649_548_800_000_i64,
                "author_id": "9", "video_type": "NORMAL", "upload_type": "Web",
                "music_type": "9.0"}}),
            json!({"topic": "items", "item": "51", "ts": first, "features": {
                "upload_ts": 1_649_635_200_000_i64, "author_id": "9", "video_type": "AD",
                "upload_type": "Web", "video_duration": 5000}}),
            json!({"topic": "users", "user": "7", "ts": first, "features": {
                "user_active_degree": "full_active", "follow_user_num": 514,
                "fans_user_num_range": "[100,1k)", "onehot_feat0": "1"}}),
        ]
    );
}

#[test]
fn taobao_files_without_header_are_sorted_across_files_by_time() {
    let (a, b) = ("1,10,5,pv,1511658002\n2,11,6,buy,1511658000\n", "3,10,5,fav,1511658001\n");
    let c = "user_id,item_id,category_id,behavior_type,timestamp\n4,11,7,cart,1511658002\n";
    let (lines, report) =
        import_files(Dataset::Taobao, &[("a.csv", a), ("b.csv", b), ("c.csv", c)]).unwrap();
    let first = 1_511_658_000_000_i64;
    assert_eq!(
        lines[..2],
        [
            json!({"topic": "items", "item": "10", "ts": first, "features": {"category": "5"}}),
            json!({"topic": "items", "item": "11", "ts": first, "features": {"category": "6"}}),
        ]
    );
    assert_eq!(
        events(&lines),
        [
            ("purchase", first),
            ("favourite", first + 1000),
            ("view", first + 2000),
            ("cart", first + 2000)
        ]
    );
    assert!(lines[2].get("context").is_none() && lines[2].get("impression").is_none());
    assert!(report.contains(" 0 rows left out\n"), "{report}");
}

#[test]
fn retailrocket_properties_change_at_their_time() {
    let log = "\
timestamp,visitorid,event,itemid,transactionid
1433193132535,1,view,5,
1433193132536,1,addtocart,5,
1433193132999,1,transaction,5,77
";
    let properties = "\
timestamp,itemid,property,value
1433193132000,5,categoryid,20
1433193131000,5,categoryid,10
1433193131000,5,790,n277200.000
1433193132900,5,available,0
1433193132950,5,categoryid,20
1433193132700,6,categoryid,30
1433193132800,6,available,1
";
    let (lines, _) =
        import_files(Dataset::Retailrocket, &[("e.csv", log), ("p.csv", properties)]).unwrap();
    let item = |item: &str, ts: i64, features: Value| json!({"topic": "items", "item": item, "ts": ts, "features": features});
    let first = 1_433_193_132_535;
    assert_eq!(lines[0], item("5", first, json!({"category": "20"})));
    assert_eq!(lines[1], item("6", first, json!({"category": "30"})));
    assert_eq!(lines[2]["type"], "view");
    assert_eq!(lines[3]["type"], "cart");
    let changed = json!({"category": "30", "available": true});
    assert_eq!(lines[4], item("6", 1_433_193_132_800, changed));
    let changed = json!({"category": "20", "available": false});
    assert_eq!(lines[5], item("5", 1_433_193_132_900, changed));
    assert_eq!(lines[6]["type"], "purchase");
    assert_eq!(lines.len(), 7);
}

#[test]
fn rees46_prices_are_the_items_first_and_each_events_own() {
    let log = "\
event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:02 UTC,remove_from_cart,5,21,,,543.10,1,s
2019-10-01 00:00:01 UTC,view,5,21,furniture.sofa,aqua,33.20,1,s
";
    let (lines, _) = import_files(Dataset::Rees46, &[("2019-Oct.csv", log)]).unwrap();
    let ts = 1_569_888_001_000_i64;
    let features = json!({"category": "21", "category_code": "furniture.sofa", "brand": "aqua", "price": 33.2});
    assert_eq!(lines[0], json!({"topic": "items", "item": "5", "ts": ts, "features": features}));
    assert_eq!(events(&lines), [("view", ts), ("remove-from-cart", ts + 1000)]);
    assert_eq!(lines[2]["context"], json!({"price": 543.1}));
}

#[test]
fn movielens_likes_follow_their_view_and_the_rating_stays_hidden() {
    let log = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n\
        1\t10\t4\t881250949\n1\t11\t3.5\t881250940\n";
    let items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n\
        10\t\"Toy\" Story\t1995\tAnimation Children's\n11\tX\t\t\n";
    let users = "user_id:token\tage:token\n1\t24\n";
    let files = [("a.inter", log), ("a.item", items), ("a.user", users)];
    let (lines, _) = import_files(Dataset::Movielens, &files).unwrap();
    assert_eq!(
        lines[0]["features"],
        json!({"movie_title": "\"Toy\" Story", "release_year": "1995", "category": "Animation",
            "genres": ["Animation", "Children's"]})
    );
    assert_eq!(lines[1]["features"], json!({"movie_title": "X"}));
    assert_eq!(lines[2]["features"], json!({"age": "24"}));
    let ts = 881_250_949_000;
    assert_eq!(events(&lines), [("view", ts - 9000), ("view", ts), ("like", ts)]);
    assert_eq!(lines[5]["impression"], lines[4]["id"]);
    assert!(!lines[4].to_string().contains("rating"));
}

#[test]
fn bad_rows_are_left_out_with_file_line_and_reason() {
    let id = "9".repeat(257);
    let log = format!(
        "user_id,video_id,time_ms,is_click,duration_ms,tab\n7,50,1650812741436,0,1,1\n\
         7,50,yesterday,0,1,1\n7,,1650812741436,0,1,1\n7,50,1650812741436,2,1,1\n\
         7,50,1650812741436,0,1\n7,50,12,0,1,1\n7,50,1650812741436,0,inf,1\n\
         {id},50,1650812741436,0,1,1\n7,50,1650812741436,0,1,1\n"
    );
    let folder = folder(&[("log.csv", &log)]);
    fs::write(folder.path().join("binary.csv"), [0xff; 100]).unwrap();
    let (lines, report) = import_paths(Dataset::Kuairand, &[folder.path().into()]).unwrap();
    assert_eq!(lines.len(), 2);
    let count = |what: &str| report.lines().any(|line| line.trim() == what);
    assert!(count("7 rows left out"), "{report}");
    assert!(count("2   expected a time from 1990 to 9999 in column time_ms"), "{report}");
    assert!(count("1   expected a value in column video_id, found none"), "{report}");
    assert!(count("1   expected 0 or 1 in column is_click"), "{report}");
    assert!(count("1   expected 6 columns, found 5"), "{report}");
    assert!(count("1   expected a finite number in column duration_ms"), "{report}");
    assert!(report.contains("log.csv:3: expected a time"), "{report}");
    assert!(report.contains("log.csv:6: expected 6 columns"), "{report}");
}

#[test]
fn a_file_of_unknown_columns_is_an_error_that_says_what_was_expected_and_found() {
    let folder = folder(&[("log.csv", "user,item,when\n1,2,3\n"), ("empty.csv", "")]);
    let path = folder.path().join("log.csv");
    let error =
        format!("{:#}", import_paths(Dataset::Rees46, std::slice::from_ref(&path)).unwrap_err());
    assert!(error.contains("log.csv: expected events with the columns event_time, "), "{error}");
    assert!(error.ends_with("found user, item, when"), "{error}");

    let error = import_paths(Dataset::Rees46, &[folder.path().join("empty.csv")]).unwrap_err();
    assert!(format!("{error:#}").ends_with("found nothing"), "{error:#}");
    let error = import_paths(Dataset::Rees46, &[folder.path().into()]).unwrap_err();
    assert!(format!("{error:#}").ends_with("found none"), "{error:#}");
}

#[test]
fn a_log_of_bad_rows_only_is_an_error() {
    let log = "timestamp,visitorid,event,itemid\nx,1,view,5\n";
    let error = import_files(Dataset::Retailrocket, &[("log.csv", log)]).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("expected events, found none in "), "{error}");
    assert!(error.contains("1 rows left out"), "{error}");
}

const REES46: &str =
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n";

fn rees46_row(second: usize, brand: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!("2019-10-01 00:{minute:02}:{second:02} UTC,view,5,77,home.lamp,{brand},9.99,3,s\n")
}

#[test]
fn a_quote_that_nobody_closes_costs_its_row_and_no_other() {
    let rows = (0..1_000).map(|i| rees46_row(i, if i == 10 { "\"acme" } else { "acme" }));
    let log: String = std::iter::once(REES46.to_owned()).chain(rows).collect();
    let (lines, report) = import_files(Dataset::Rees46, &[("oct.csv", &log)]).unwrap();
    assert_eq!(events(&lines).len(), 999);
    assert!(report.contains(" 1 rows left out\n"), "{report}");
    assert!(
        report.contains("oct.csv:12: expected the quote that opens column 6 to close"),
        "{report}"
    );
}

#[test]
fn a_field_of_several_lines_is_counted_line_by_line() {
    let log = format!("{REES46}{}{}", rees46_row(0, "\"a\nb\r\n\nc\""), rees46_row(1, "acme"));
    let (lines, report) = import_files(Dataset::Rees46, &[("oct.csv", &log)]).unwrap();
    assert_eq!(events(&lines).len(), 1);
    assert!(report.contains(" 3 rows left out\n"), "{report}");
    assert!(report.contains("oct.csv:2: expected the quote"), "{report}");
}

#[test]
fn every_line_is_a_row_or_counted_whatever_stands_in_it() {
    const PIECES: [&str; 12] =
        ["\"", "\"\"", ",", "\n", "\r\n", "\r", "\u{feff}", " ", "acme", "\0", "é", "\",\""];
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..300 {
        let mut log = REES46.to_owned();
        for second in 0..40 {
            let pieces = random.random_range(0..4);
            let brand: String =
                (0..pieces).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect();
            log.push_str(&rees46_row(second, &brand));
        }
        // One whole row at least, and one that is cut off somewhere.
        log.push_str(&rees46_row(41, "acme"));
        log.push_str(&rees46_row(42, "acme")[..random.random_range(0..55)]);
        let is_row = |line: &&str| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            line.strip_prefix('\u{feff}').unwrap_or(line).contains(|c| c != ' ')
        };
        let rows = log.split('\n').skip(1).filter(is_row).count();
        let (lines, report) = import_files(Dataset::Rees46, &[("oct.csv", &log)]).unwrap();
        let left = report.lines().find_map(|line| line.trim().strip_suffix(" rows left out"));
        assert_eq!(events(&lines).len() + left.unwrap().parse::<usize>().unwrap(), rows, "{log}");
    }
}

#[test]
fn marks_line_ends_and_padding_change_nothing() {
    let plain = format!(
        "{REES46}{}{}",
        rees46_row(0, "acme"),
        rees46_row(1, "a,b").replace("a,b", "\"a,b\"")
    );
    let (expected, _) = import_files(Dataset::Rees46, &[("oct.csv", &plain)]).unwrap();
    let marked = format!("\u{feff}{plain}");
    let padded = plain.replace(",9.99,", " , 9.99 ,").replace(',', " ,").replace("a ,b", "a,b");
    let quoted = plain.replace("view", "\"view\"").replace("event_time", "\"event_time\"");
    for (name, text) in [
        ("CRLF", plain.replace('\n', "\r\n")),
        ("a mark and CRLF", marked.replace('\n', "\r\n")),
        ("a mark", marked),
        ("padding", padded),
        ("quotes", quoted),
        ("no last line end", plain.trim_end().to_owned()),
    ] {
        let (lines, report) = import_files(Dataset::Rees46, &[("oct.csv", &text)]).unwrap();
        assert_eq!(lines, expected, "{name}: {report}");
    }
}

#[test]
fn what_can_be_read_only_once_loses_nothing() {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    let rows: String = (0..40_000)
        .map(|i| format!("{},{},{},pv,{}\n", i % 977, i % 5000, i % 50, 1_511_658_000 + i))
        .collect();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let feeder = std::thread::Builder::new().name("feeds".into());
    feeder.spawn(move || writer.write_all(rows.as_bytes())).unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let (lines, report) = import_paths(Dataset::Taobao, &[path]).unwrap();
    assert_eq!(events(&lines).len(), 40_000);
    assert!(report.contains(" 0 rows left out\n"), "{report}");
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_leaves_the_earlier_output() {
    use std::io::Write;

    let rows: String =
        (0..30_000).map(|i| format!("{i},{},5,pv,1511658002\n", i * 7919 % 65_537)).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(rows.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("a.gz"), folder.path().join("cut.gz"));
    fs::write(&whole, &packed).unwrap();
    fs::write(&cut, &packed[..packed.len() - 100]).unwrap();
    let output = folder.path().join("records.jsonl");
    let import = |path: &PathBuf, output: &PathBuf| {
        let (paths, output) = (vec![path.clone()], Some(output.clone()));
        run(&Arguments { dataset: Dataset::Taobao, paths, output })
    };
    import(&whole, &output).unwrap();
    let good = fs::read(&output).unwrap();
    let error = format!("{:#}", import(&cut, &output).unwrap_err());
    assert!(error.contains("cut.gz: cannot be read behind line "), "{error}");
    assert!(fs::read(&output).unwrap() == good);

    let error = format!("{:#}", import(&whole, &whole).unwrap_err());
    assert!(error.contains("is the input"), "{error}");
    assert!(fs::read(&whole).unwrap() == packed);
    // A damaged file in a folder is no file of an unknown kind.
    fs::write(folder.path().join("cut.gz"), &packed[..5]).unwrap();
    let folder = folder.path().to_path_buf();
    assert!(format!("{:#}", import(&folder, &output).unwrap_err()).contains("cut.gz"));
}

#[test]
fn the_daemon_takes_every_line_of_the_real_files() {
    use sluice_features::funnel::Entry;

    let impressions = funnel(
        Entry::Impression,
        "impression",
        &[("click", None), ("long_view", Some(0)), ("like", Some(0))],
        &["follow", "comment", "forward", "hate", "profile_enter"],
    );
    let views = funnel(
        Entry::View { negatives: 1 },
        "view",
        &[("view", None), ("cart", None), ("purchase", Some(1)), ("like", None)],
        &["favourite", "remove-from-cart"],
    );
    for (dataset, name, funnel) in [
        (Dataset::Kuairand, "kuairand", &impressions),
        (Dataset::Taobao, "taobao", &views),
        (Dataset::Retailrocket, "samples/retailrocket_200.csv", &views),
        (Dataset::Rees46, "samples/rees46_2019-Oct_first_1000.csv", &views),
        (Dataset::Movielens, "movielens-100k", &views),
    ] {
        let Some(path) = data(name) else { return };
        let output = tempfile::tempdir().unwrap();
        let output = output.path().join("records.jsonl.gz");
        let paths = vec![path];
        run(&Arguments { dataset, paths, output: Some(output.clone()) }).unwrap();
        files::for_each_line(&output, &Shutdown::new(), |_, _, line| {
            let files::Line::Whole(line) = line else { unreachable!() };
            let line = std::str::from_utf8(line)?;
            decode(line, funnel).unwrap_or_else(|why| panic!("{why:?}: {line}"));
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn all_of_kuairand_is_there() {
    let Some(path) = data("kuairand") else { return };
    let (lines, report) = import_paths(Dataset::Kuairand, std::slice::from_ref(&path)).unwrap();
    let impressions = lines.iter().filter(|line| line["type"] == "impression");
    let ids: Vec<&str> = impressions.map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 94_784);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 92_034);
    assert_eq!(lines.iter().filter(|line| line["topic"] == "items").count(), 7_583);
    assert_eq!(lines.iter().filter(|line| line["topic"] == "users").count(), 27_285);
    assert!(report.contains(" 0 rows left out\n"), "{report}");
    assert!(events(&lines).is_sorted_by_key(|event| event.1));
    assert!(topics(&lines).is_sorted_by_key(|topic| {
        ["items", "users", "events"].iter().position(|known| known == topic)
    }));
}

#[test]
fn all_of_the_other_real_files_is_there() {
    for (dataset, name, expected) in [
        (Dataset::Taobao, "taobao/user_behavior_timeorder_110k.csv.gz", 110_300),
        (Dataset::Taobao, "taobao", 124_621),
        (Dataset::Retailrocket, "samples/retailrocket_200.csv", 199),
        (Dataset::Rees46, "samples/rees46_2019-Oct_first_1000.csv", 1_000),
        (Dataset::Movielens, "movielens-100k", 155_375),
    ] {
        let Some(path) = data(name) else { return };
        let (lines, report) = import_paths(dataset, std::slice::from_ref(&path)).unwrap();
        let events = events(&lines);
        assert_eq!(events.len(), expected, "{name}");
        assert!(events.is_sorted_by_key(|event| event.1), "{name}");
        assert!(report.contains(" 0 rows left out\n"), "{name}: {report}");
        let first = events[0].1;
        assert!(lines.iter().all(|line| line["topic"] == "events" || line["ts"] == first));
    }
}
