//! The suite: every test runs on the emulator and, with `DSA_BACKEND=gpu` and the feature `cust`, on a GPU.
//! On the emulator sizes are reduced; the GPU runs all of it. `DSA_SEED` changes what is random.
//!
//! How earlier top-k systems failed, and the test that would see it here:
//!
//! | failure | test |
//! |---|---|
//! | elements dropped when a coarse bin overflows the candidate buffer | `exactness::a_crowded_bin_drops_nothing_on_any_path` |
//! | hang: spin barriers without co-residency | `schedules::the_result_does_not_depend_on_how_many_blocks_run_at_once` |
//! | hang: a length of -1 read as unsigned | `lengths::lengths_of_graph_padding_rows_are_empty_rows` |
//! | blocks deciding from host bound against device length | `lengths::rows_far_shorter_than_the_limit_stay_exact` |
//! | reset racing with late readers, counters left over | `graphs::many_replays_on_one_workspace_stay_exact` |
//! | a conditional memset that was not captured | `graphs::a_graph_follows_lengths_and_contents_changed_after_capture` |
//! | buffer rotation broken by long-short-long | `lengths::long_and_short_rows_in_turn_stay_exact` |
//! | shared memory reused without a barrier; arrival before the block had finished | `schedules::every_schedule_gives_the_right_set` |
//! | plan from the padded width | `lengths::rows_far_shorter_than_the_limit_stay_exact` |
//! | padding lanes of a last vector counted as elements | `exactness::a_last_vector_of_minus_infinities_adds_no_elements` |
//! | row pitch taken from the width | `layout::any_pitch_and_alignment_is_right` |
//! | NaN giving different coarse and fine bins | `exactness::nan_ranks_below_minus_infinity_on_every_path` |
//! | taking every multiprocessor | `paths::a_limit_on_multiprocessors_limits_the_grid` |
//! | equal scores taken in the order that blocks arrive in | `options::a_row_gives_the_same_words_in_every_batch_and_on_every_schedule` |
//! | places without a score taken for NaN | `paths::nan_of_16_bits_is_selected_once` |
//! | a vector of 16-bit scores that reaches beyond the row | `options::scores_of_16_bits_are_right_at_every_alignment` |
//! | state that a launch leaves for the next one | `state::every_launch_leaves_the_state_zero` |
//!
//! Every test runs on a workspace full of garbage.
//!
//! What the tests of the compressor's origin left out, and the test that has it here:
//!
//! | case | test |
//! |---|---|
//! | every entry of the table of configurations | `compress_decode::every_configuration_is_right` |
//! | three new tokens with windows of 128; a window that closes at any of the new tokens | `compress_decode::a_window_may_close_at_any_of_the_new_tokens` |
//! | pages smaller than, equal to and larger than a window | `compress_decode::pages_of_any_size_are_found` |
//! | requests that emit beside others that do not, ragged counts | `compress_decode::ragged_counts_and_requests_that_emit_nothing` |
//! | rejected draft tokens | `compress_decode::rejected_tokens_are_undone_by_running_again` |
//! | state of bf16 | every test takes all pairs of types in turn |
//! | exact bytes of the pools, untouched output rows, poison in unused memory | every test: `harness::Harness::verify` |
//! | a graph whose lengths, tables and contents change | `compress_graphs::a_graph_follows_lengths_tables_and_contents_changed_after_capture` |
//! | rows that the launch stores which writes them | `compress_store`, `compress_graphs::a_decode_that_stores_in_one_graph_stays_right_for_many_replays` |
//! | a bad request beside good ones | `compress_errors::a_bad_request_is_reported_and_changes_nothing` |

mod clusters;
mod compress_cache;
mod compress_decode;
mod compress_errors;
mod compress_graphs;
mod compress_post;
mod compress_prefill;
mod compress_running;
mod compress_store;
mod compress_support;
mod crowded;
mod errors;
mod exactness;
mod graphs;
mod guesses;
mod layout;
mod lengths;
mod options;
mod paths;
mod primitives;
mod properties;
mod schedules;
mod state;
mod streams;
mod support;
