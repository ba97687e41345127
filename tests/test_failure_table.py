"""Each row of the table of failures on the operations page is shown by tests or drills that exist."""

import re
from pathlib import Path

import pytest

from tests.drills.failures import FAILURES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operations.md"

# By the first cell of a row: the tests that show what callers get, and where it shows. Each is in a module of `tests`.
SHOWN_BY = {
    "Redis is away, or its replies take longer than 200 ms": {
        "drills/failures": "Redis is away",
        "drills/test_faults": "test_callers_are_served_through_it",
        "serving/test_readiness": "test_a_limiter_without_redis_says_since_when_and_what_holds_meanwhile",
        "test_alerts": "MachPayLimiterDegraded",
    },
    "Redis refuses: a rotated password, a right that was taken, a replica, full memory": {
        "drills/failures": "Redis refuses the password",
        "serving/test_limiter_outages": "test_what_redis_refuses_while_serving_is_an_outage_that_ends_by_itself",
        "limiters/test_refused_starts": "test_a_right_that_the_user_does_not_have",
    },
    "Redis lost its data": {
        "drills/failures": "Redis lost its data",
        "limiters/test_lost_counts": "test_a_server_that_was_restored_from_a_snapshot_goes_on_from_what_is_stored",
        "drills/test_quota_kept": "test_",
    },
    "one shard of a Cluster is away": {
        "drills/failures": "one shard of a Cluster is away",
        "limiters/test_cluster_outages": "test_a_dead_shard_takes_only_its_own_subjects_with_it",
    },
    "workers start while Redis is away": {
        "drills/failures": "workers start while Redis is away",
        "serving/test_local_share": "test_hosts_that_start_without_redis_admit_the_part_of_the_expected_workers",
    },
    "the database is away, hangs, or a table is locked": {
        "drills/failures": "a table is locked",
        "drills/test_database_faults": "test_keys_in_use_are_served_and_others_are_refused_at_once",
        "stores/test_lookup_queue": "test_a_store_that_hangs_is_waited_for_within_bounds_and_then_not_at_all",
        "serving/test_readiness": "test_keys_in_the_cache_keep_it_ready_and_degraded",
    },
    "the database takes no writes": {
        "drills/failures": "the database takes no writes",
        "postgres/test_failover": "test_a_single_server_that_turned_read_only_is_read_and_said_to_be_so",
        "stores/test_write_checks": "test_a_read_only_server_is_found",
    },
    "the database was restored from a backup": {
        "drills/failures": "the database was restored",
        "drills/test_database_faults": "test_records_of_a_restored_backup_are_believed_within_seconds",
        "postgres/test_operations": "test_a_backup_is_made_and_put_back_as_the_page_says",
    },
    "an account with a million keys changes its tier, or many keys change": {
        "drills/failures": "100,000 keys change their tier",
        "drills/test_database_faults": "test_the_tier_of_an_account_with_many_keys_changes_at_once",
    },
    "a disk is full": {
        "drills/failures": "a disk is full",
        "serving/test_logs": "test_a_full_disk_costs_one_line_a_minute_and_the_lost_records_are_counted",
        "stores/test_write_checks": "test_a_full_disk_under_sqlite_is_found",
    },
    "the clock of a host is wrong": {
        "drills/failures": "the clock of a host is wrong",
        "serving/test_vitals": "test_a_worker_whose_clock_is_off_says_so",
        "stores/test_store_contract": "test_changes_follow_one_another_whatever_the_clocks_that_stamped_them",
    },
    "a worker dies": {
        "drills/failures": "a worker dies",
        "drills/test_worker_faults": "test_a_killed_worker_gives_back_all_its_slots_within_ten_seconds",
    },
    "a worker hangs": {
        "drills/failures": "a worker hangs",
        "serving/test_hung_workers": "test_a_worker_that_hangs_is_replaced_while_the_other_one_serves",
    },
    "one account floods a worker": {
        "drills/failures": "one account floods",
        "drills/test_flood": "test_an_account_that_floods_a_worker_does_not_keep_the_others_from_it",
        "core/test_load_shedder": "test_an_account_that_floods_is_refused_and_the_others_are_served",
    },
    "hosts serve by different policies": {
        "drills/failures": "hosts serve by different policies",
        "serving/test_vitals": "test_a_host_with_another_policy_shows",
    },
    "an upstream fails": {
        "drills/failures": "an upstream fails",
        "drills/test_proxy_faults": "test_an_upstream_that_is_silent_is_given_up_and_one_that_breaks_off_is_told",
        "drills/test_upstream_faults": "test_requests_that_fail_with_servers_of_a_pool",
        "serving/test_upstream_health": "test_served_workers_share_the_checks_and_show_what_is_out",
    },
    "the keys of an issuer cannot be loaded": {
        "drills/failures": "an issuer is away",
        "test_keysets_remote": "test_a_server_that_went_away_leaves_the_last_good_keys",
    },
    "two releases serve side by side": {
        "drills/test_side_by_side": "test_a_deployment_rolls_forward_and_back_without_a_failed_request",
    },
}


def rows(title: str = "## When something fails") -> list[list[str]]:
    """Return the cells of the table below *title*."""
    section = PAGE.read_text().partition(f"\n{title}\n")[2].partition("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_each_failure_of_the_drill_has_figures() -> None:
    assert [row[0] for row in rows("### Figures")] == [failure.name for failure in FAILURES]


def test_each_failure_is_shown() -> None:
    assert [row[0] for row in rows()] == list(SHOWN_BY)


@pytest.mark.parametrize("failure", SHOWN_BY)
def test_what_shows_a_failure_exists(failure: str) -> None:
    for path, name in SHOWN_BY[failure].items():
        assert name in (ROOT / "tests" / f"{path}.py").read_text(), f"{path} has no {name}"


def test_the_metrics_and_alerts_of_the_table_exist() -> None:
    text = "".join(cell for row in rows() for cell in row)
    documented = (ROOT / "docs" / "metrics.md").read_text()
    missing = [name for name in re.findall(r"`(machpay_\w+|MachPay\w+)`", text) if f"`{name}`" not in documented]
    assert not missing
