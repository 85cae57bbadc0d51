//! `tercet-chaos list`.

/// Prints every scenario.
pub(super) fn list() {
    for scenario in tercet_chaos::scenarios() {
        let rows: Vec<String> = scenario.rows.iter().map(u8::to_string).collect();
        println!("{}  (rows: {}; lane: {})", scenario.name, rows.join(" "), scenario.lane.word());
        println!("    given    {}", scenario.given);
        println!("    expects  {}", scenario.hypothesis);
        println!("    fault    {}", scenario.fault);
        println!("    after    {}", scenario.recovery);
        for invariant in scenario.invariants {
            println!("    {invariant:<8} {}", invariant.words());
        }
    }
}
