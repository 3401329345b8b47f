//! The journal under 200 seeds.

#[test]
fn acknowledged_records_survive_crashes_at_any_operation() {
    let failures: Vec<String> =
        (0..200).filter_map(|seed| sim::journal_crash::run(seed).err().map(|why| format!("seed {seed}: {why}"))).collect();
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}
