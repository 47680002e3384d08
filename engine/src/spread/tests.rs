//! The policies alone: cores are numbers here.

use super::*;

fn core(load: u32, connections: u32) -> Standing {
    Standing { is_open: true, load, connections, fresh: 0 }
}

/// Numbers from a seed.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    }
}

/// Places a burst of connections that the kernel gave to the cores that `given` names.
fn burst(cores: &mut [Standing], given: impl Iterator<Item = usize>) -> usize {
    let mut moved = 0;
    for me in given {
        let target = place(me, cores);
        moved += usize::from(target != me);
        cores[target].connections += 1;
        cores[target].fresh += 1;
    }
    moved
}

#[test]
fn where_all_are_alike_everybody_keeps_what_the_kernel_gave() {
    for count in [0, 1, 10, 1_000] {
        let cores = [core(300, count), core(310, count + 1), core(290, count + 2)];
        for me in 0..3 {
            assert_eq!(place(me, &cores), me, "{cores:?}");
        }
    }
}

#[test]
fn connections_leave_a_core_that_is_clearly_busier_and_not_for_one_that_takes_nothing() {
    let mut cores = [core(900, 1), core(100, 50)];
    assert_eq!(place(0, &cores), 1, "load goes before numbers");
    assert_eq!(place(1, &cores), 1, "nothing goes to the busier one for its empty seats");
    cores[1].is_open = false;
    assert_eq!(place(0, &cores), 0);
    assert_eq!(place(0, &[core(1000, 70)]), 0, "alone");
}

#[test]
fn two_hundred_connections_at_once_end_up_even_however_the_kernel_deals_them() {
    let seed = 0x5eed;
    let mut dice = dice(seed);
    for cores in 2..9_usize {
        for skew in [1, 2, 10] {
            let mut standing = vec![core(0, 0); cores];
            // The first core gets `skew` times as many as each other one.
            let slots = cores as u64 - 1 + skew;
            let given = (0..200).map(|_| dice(slots).saturating_sub(skew - 1) as usize);
            burst(&mut standing, given.collect::<Vec<_>>().into_iter());
            let counts: Vec<u32> = standing.iter().map(|core| core.connections).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            let bound = CONNECTIONS_STEP.max(least / 8) + 1;
            assert!(most - least <= bound, "seed {seed}, {cores} cores, skew {skew}: {counts:?}");
        }
    }
}

#[test]
fn a_burst_on_a_busy_core_does_not_all_go_to_the_idlest_one() {
    let mut cores = [core(900, 30), core(100, 30), core(150, 30), core(120, 30)];
    let moved = burst(&mut cores, std::iter::repeat_n(0, 60));
    assert!(moved >= 40, "{cores:?}");
    for idle in &cores[1..] {
        assert!((10..=30).contains(&idle.fresh), "{cores:?}");
    }
}

#[test]
fn random_cores_never_get_what_they_do_not_take_and_moves_never_make_it_worse() {
    let seed = 0xc0de;
    let mut dice = dice(seed);
    for round in 0..20_000 {
        let count = 1 + dice(8) as usize;
        let cores: Vec<Standing> = (0..count)
            .map(|_| Standing {
                is_open: dice(4) > 0,
                load: dice(1001) as u32,
                connections: dice(300) as u32,
                fresh: dice(3) as u32,
            })
            .collect();
        let me = dice(count as u64) as usize;
        let target = place(me, &cores);
        if target == me {
            continue;
        }
        let (mine, theirs) = (&cores[me], &cores[target]);
        assert!(theirs.is_open, "seed {seed}, round {round}: {cores:?}");
        let is_less_busy = theirs.load < mine.load;
        let is_emptier = theirs.connections < mine.connections;
        assert!(is_less_busy || is_emptier, "seed {seed}, round {round}: {me} {cores:?}");
    }
}

#[test]
fn requests_of_one_weight_are_shared_evenly() {
    for neighbours in 1..6_usize {
        let mut work = vec![Some(0); neighbours];
        let (weight, count) = (30_000, 60);
        let mut here = weight * count;
        for _ in 0..count {
            if let Some(index) = move_to(weight, here, work.iter().copied()) {
                *work[index].as_mut().unwrap() += weight;
                here -= weight;
            }
        }
        let fair = weight * count / (neighbours as u64 + 1);
        assert!(here >= fair && here <= fair + 2 * weight, "{here} here, {work:?}");
        assert!(work.iter().all(|work| work.unwrap() + 2 * weight >= fair), "{work:?}");
    }
}

#[test]
fn small_requests_and_those_that_are_only_checked_stay() {
    let moves = |bytes: u64, each: u64| is_worth_the_way(bytes * each, bytes);
    assert!(!moves(100, PACKED_WEIGHT) && !moves(1_000, JSON_WEIGHT), "small");
    assert!(moves(1_000, PACKED_WEIGHT) && moves(2_000, JSON_WEIGHT));
    assert!(!moves(10_000_000, 1), "plain protobuf, whatever its length");
}

#[test]
fn a_request_stays_where_no_neighbour_is_done_with_it_sooner() {
    let weight = 100_000;
    let stays = |here, work: &[Option<u64>]| move_to(weight, here, work.iter().copied()).is_none();
    assert!(stays(weight, &[Some(0)]), "the only one: it would be done here before it is there");
    assert!(stays(20 * weight, &[Some(20 * weight)]), "both are hot");
    assert!(stays(20 * weight, &[None, None]), "nobody takes any");
    assert_eq!(move_to(weight, 2 * weight, [Some(0)].into_iter()), Some(0), "one each");
    assert_eq!(move_to(weight, 9 * weight, [None, Some(weight), Some(5)].into_iter()), Some(2));
}

#[test]
fn the_meter_follows_a_change_within_a_tenth_of_a_second_and_forgets_across_a_sleep() {
    let mut meter = Meter::default();
    let (mut now, mut wanted) = (5, 1_000);
    assert!(meter.is_due(now));
    assert_eq!(meter.look(now, wanted), 0);
    assert!(!meter.is_due(now + MEASURE_NANOS - 1));
    let mut load = 0;
    for _ in 0..5 {
        now += MEASURE_NANOS;
        wanted += MEASURE_NANOS;
        load = meter.look(now, wanted);
    }
    assert!((700..=FULL).contains(&load), "{load}");
    for _ in 0..100 {
        now += MEASURE_NANOS;
        wanted += MEASURE_NANOS / 4;
        load = meter.look(now, wanted);
    }
    assert!((240..=260).contains(&load), "{load}");
    assert_eq!(meter.look(now + 100 * MEASURE_NANOS, wanted), 0, "it slept");
}
