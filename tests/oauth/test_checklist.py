"""Each line of the checklist has its tests: so that none is forgotten when tests are moved."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKLIST = HERE.parents[2] / "shared" / "reference" / "oauth-checklist.md"
TESTS = {
    1: [
        "test_what_is_almost_the_registered_uri_is_an_error_page_and_no_redirect",
        "test_two_redirect_uris_are_no_reading_of_either",
    ],
    2: ["test_an_unknown_client_is_an_error_page_and_no_redirect", "test_two_client_ids_are_an_error_page"],
    3: [
        "test_the_second_use_of_a_code_ends_what_came_of_the_first",
        "test_a_second_use_that_comes_late_ends_it_too",
    ],
    4: [
        "test_a_code_that_somebody_else_presents_is_not_used_up_and_ends_nothing",
        "test_a_code_is_bound_to_its_redirect_uri",
    ],
    5: ["test_a_code_lives_for_a_minute_at_most"],
    6: ["test_no_page_lets_a_code_out_by_its_address"],
    7: [
        "test_a_request_without_s256_is_told_so",
        "test_a_verifier_that_does_not_fit_gets_nothing_and_the_right_one_still_does",
        "test_a_verifier_where_no_challenge_was_is_a_downgrade",
    ],
    8: ["test_state_comes_back_as_it_was_sent_and_means_nothing", "test_a_state_that_was_not_sent_is_not_there"],
    9: [
        "test_every_error_goes_back_with_the_issuer_and_state",
        "test_a_good_answer_has_the_issuer_that_the_metadata_names",
    ],
    10: [
        "test_an_issuer_with_a_path_has_it_in_front_of_its_endpoints_and_behind_the_well_known",
        "test_an_issuer_that_could_drift_cannot_be_set",
    ],
    11: [
        "test_the_reuse_of_any_older_token_ends_the_family",
        "test_the_reuse_of_a_token_that_would_have_expired_ends_the_family_too",
        "test_a_lost_answer_is_given_again_for_ten_seconds_with_the_same_successor",
        "test_a_refresh_token_is_its_clients_alone_and_is_not_used_up_by_others",
        "test_a_scope_can_be_narrowed_never_widened_and_the_refresh_token_keeps_its_own",
        "test_a_family_ends_for_good_however_often_it_is_refreshed",
    ],
    12: ["test_fifty_presentations_of_a_refresh_token_have_one_successor"],
    13: ["test_fifty_presentations_of_a_code_give_tokens_once_and_then_end_them"],
    14: [
        "test_revoking_a_refresh_token_ends_its_access_tokens_at_the_next_request",
        "test_revoking_what_is_not_there_succeeds",
        "test_another_clients_token_is_not_revoked",
        "test_revoking_needs_the_client_and_a_token",
    ],
    15: ["test_all_that_is_not_good_reads_the_same", "test_asking_about_tokens_needs_a_client_that_proves_itself"],
    16: [
        "test_id_and_secret_are_percent_encoded_in_the_header",
        "test_two_ways_at_once_are_no_request",
        "test_what_is_secret_is_not_read_from_the_query",
        "test_a_wrong_secret_is_told_with_a_challenge",
        "test_secrets_are_compared_in_a_time_that_tells_nothing",
        "test_a_public_client_has_no_secret_to_send",
    ],
    17: [
        "test_only_post_gets_tokens",
        "test_a_body_of_another_type_is_no_request",
        "test_what_is_wrong_is_told_by_its_code_in_json_that_no_cache_keeps",
        "test_unknown_parameters_are_ignored_and_an_answer_is_kept_by_no_cache",
        "test_scripts_of_any_origin_may_ask_where_no_cookie_counts",
        "test_scripts_of_other_origins_may_not_ask_where_users_are_known",
    ],
    18: [
        "test_every_error_goes_back_with_the_issuer_and_state",
        "test_what_is_wrong_is_told_by_its_code_in_json_that_no_cache_keeps",
    ],
    19: [
        "test_every_page_forbids_frames_scripts_and_caches",
        "test_a_sign_in_that_no_page_of_ours_sent_is_not_taken",
        "test_consent_that_no_page_of_ours_sent_is_asked_for_again",
        "test_names_states_and_e_mails_are_text_and_nothing_else",
    ],
    20: [
        "test_more_than_there_is_or_than_the_client_may_ask_for_is_refused",
        "test_what_the_user_leaves_out_the_gateway_refuses",
        "test_the_same_is_not_asked_twice_and_more_is",
    ],
    21: [
        "test_even_our_own_signature_is_good_for_what_it_was_made_for_only",
        "test_a_session_is_no_access_token_and_no_access_token_a_session",
        "test_codes_refresh_tokens_and_secrets_are_no_access_tokens",
    ],
    22: [
        "test_ten_thousand_strings_are_all_different_and_look_random",
        "test_an_address_that_guesses_a_password_is_slowed_and_its_owner_elsewhere_is_not",
        "test_an_app_whose_visitors_bring_it_dead_codes_serves_everybody_else",
        "test_where_somebody_is_signed_in_strangers_elsewhere_cannot_shut_them_out",
    ],
    23: [
        "test_a_disabled_users_tokens_are_dead_and_come_back_with_the_user",
        "test_a_deleted_clients_tokens_are_dead",
    ],
    24: ["test_an_app_on_the_users_machine_gets_whatever_port_is_free"],
    25: ["test_no_secret_is_left_anywhere"],
}  # fmt: skip


def test_every_line_has_tests_that_are_there() -> None:
    written = {name for path in HERE.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert [name for names in TESTS.values() for name in names if name not in written] == []
    assert list(TESTS) == list(range(1, 26))


@pytest.mark.skipif(not CHECKLIST.exists(), reason="the checklist is not beside this checkout")
def test_no_line_of_the_checklist_is_left_out() -> None:
    numbers = {int(number) for number in re.findall(r"^(\d{1,2})\. ", CHECKLIST.read_text(), re.MULTILINE)}
    assert numbers - set(TESTS) == set()
    assert set(TESTS) - numbers <= {12}  # which stands in the middle of another's line
