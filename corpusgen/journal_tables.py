"""The tables of a journal, as a new one gets them and as those of older versions are brought up to them."""

from __future__ import annotations

from typing import Final

JOURNAL_VERSION = 6

_IN_4 = """
create table remarks(
    run_id text not null, stage text not null, item_id text not null, reason text not null, detail text,
    score real, threshold real, other text, primary key(run_id, stage, item_id, reason)) without rowid;
create table sieved(
    pool blob not null, n integer not null, mark blob not null, digest blob, findings text,
    primary key(pool, n)) without rowid;
create table findings(
    dataset text not null, version text not null, record_id blob not null, stage text not null, reason text not null,
    kept integer not null, metric text, score real, threshold real, other text, detail text,
    primary key(dataset, version, record_id, stage, reason)) without rowid;
"""
_IN_5 = """
create table events(
    seq integer primary key, kind text not null, occurred_us integer not null, commitment blob not null,
    nonce blob, payload text);
create table checkpoints(
    size integer primary key, root blob not null, peaks blob not null, envelope text not null,
    signed_us integer not null);
create table waivers(
    waiver_id text primary key, waiver text not null, granted_us integer not null, ended_us integer) without rowid;
create table reviews(
    review_id integer primary key, terms_id text not null, review text not null, envelope text not null,
    reviewed_us integer not null);
create table snapshots(
    terms_id text not null, sha256 text not null, size_bytes integer not null, text blob, taken_us integer not null,
    primary key(terms_id, sha256)) without rowid;
create table imports(
    import_id text primary key, dataset text not null, facts text not null, imported_us integer not null) without rowid;
create table dataset_secrets(
    name text not null, version text not null, secret blob not null, primary key(name, version)) without rowid;
create table releases(
    release_id text primary key, student_id text not null, release text not null, envelope text not null,
    released_us integer not null, withdrawn_us integer) without rowid;
create table erasures(
    erasure_id integer primary key, erasure text not null, envelope text not null, erased_us integer not null);
create table erased(mark blob primary key, erasure_id integer not null) without rowid;
"""
_IN_6 = """
create table tokens(
    token_id text primary key, digest blob not null unique, name text not null, scopes text not null,
    user text not null, facts text not null default '{}', created_us integer not null, expires_us integer,
    revoked_us integer, used_us integer) without rowid;
create table service_runs(
    service_run_id text primary key, task text not null, spec text not null, facts text not null default '{}',
    state text not null check(state in (
        'waiting', 'running', 'complete', 'partial', 'exhausted', 'refused', 'failed', 'cancelled')),
    run_id text, submitted_us integer not null, began_us integer, ended_us integer, owner_id integer,
    cancelled_us integer) without rowid;
create table hits(
    record_id blob not null, caller text not null, day integer not null, hits integer not null,
    saved_microusd integer not null, primary key(record_id, caller, day)) without rowid;
create table lent(
    lease_id integer primary key, token_id text not null, facts text not null default '{}', reported_us integer,
    call_id integer);
create table borrowed(
    borrowed_id integer primary key, service text not null, lease_id integer not null, owner_id integer not null,
    facts text not null default '{}', borrowed_us integer not null, reported_us integer, offered_us integer);
create index borrowed_open on borrowed(service) where reported_us is null or offered_us is null;
create table borrowed_calls(call_id integer primary key, borrowed_id integer not null);
create index borrowed_calls_of_lease on borrowed_calls(borrowed_id);
create table service_files(
    file_id text primary key, user text not null, token_id text not null, name text not null, purpose text not null,
    size_bytes integer not null, sha256 text, body blob, service_batch_id text, made_us integer not null) without rowid;
create index service_files_of_user on service_files(user, made_us);
create table service_batches(
    service_batch_id text primary key, user text not null, token_id text not null, wire text not null,
    facts text not null default '{}', state text not null check(state in (
        'validating', 'in_progress', 'finalizing', 'cancelling', 'completed', 'failed', 'expired', 'cancelled')),
    made_us integer not null, ended_us integer) without rowid;
create index service_batches_of_user on service_batches(user, made_us);
create table service_lines(
    service_batch_id text not null, n integer not null, custom_id text not null, body blob,
    state text not null default 'waiting' check(state in ('waiting', 'answered', 'failed', 'cancelled', 'expired')),
    request_key blob, result blob, told text, size_bytes integer not null default 0,
    primary key(service_batch_id, n));
create index service_lines_by_state on service_lines(service_batch_id, state, n);
create index service_lines_by_request on service_lines(request_key) where request_key is not null;
"""
SCHEMA: Final = (
    """
create table meta(name text primary key, value text not null) without rowid;
create table owners(
    owner_id integer primary key, pid integer not null, boot_id text not null, start_ticks integer not null);
create table runs(
    run_id text primary key, task text not null, spec_digest text not null, spec text not null,
    facts text not null default '{}', status text not null, started_us integer not null, ended_us integer);
create index runs_by_spec on runs(spec_digest);
create table caps(
    scope text not null, unit text not null, per text not null default 'total',
    cap integer not null, origin text not null, set_us integer not null,
    primary key(scope, unit, per)) without rowid;
create table balances(
    scope text not null, unit text not null,
    settled integer not null, promised integer not null, unconfirmed integer not null,
    primary key(scope, unit),
    check(settled >= 0 and promised >= 0 and unconfirmed >= 0)) without rowid;
create table calls(
    call_id integer primary key, run_id text not null, request_key blob not null, teacher text not null,
    role text not null, attempt integer not null, scopes text not null, owner_id integer not null,
    state text not null check(state in ('promised', 'settled', 'unknown', 'released', 'overrun')),
    reserved_microusd integer not null, reserved_tokens integer not null, reserved_requests integer not null,
    microusd integer, tokens integer, requests integer,
    price_version text not null, error text, provider_request_id text,
    reserved_us integer not null, closed_us integer,
    reserved_compute_us integer not null default 0, compute_us integer, batch_id text, batch_line integer);
create index calls_open on calls(owner_id) where state = 'promised';
create index calls_claiming on calls(request_key) where state = 'promised';
create index calls_of_batch on calls(batch_id) where batch_id is not null;
create view claims as
    select request_key, call_id, owner_id, reserved_us as claimed_us, batch_id from calls where state = 'promised';
create table batches(
    batch_id text primary key, run_id text not null, teacher text not null, identity text not null,
    card_id text not null, owner_id integer not null,
    state text not null check(state in ('intended', 'submitted', 'ended', 'freed')),
    provider_batch_id text, lines integer not null, said text not null default '{}',
    intended_us integer not null, missed_us integer, submitted_us integer, closed_us integer) without rowid;
create table reuses(run_id text not null, record_id blob not null, primary key(run_id, record_id)) without rowid;
create table unreadable(call_id integer primary key, body blob not null);
create table spans(
    span_id integer primary key, run_id text not null, owner_id integer not null, scopes text not null,
    began_us integer not null, wall_us integer not null);
create table reconciliations(
    reconciliation_id integer primary key, call_id integer not null, before text not null, after text not null,
    microusd_before integer not null, microusd integer, tokens integer, by text not null, reason text not null,
    source_sha256 text, reconciled_us integer not null);
create index reconciliations_of_call on reconciliations(call_id);
create table leases(
    lease_id integer primary key, owner_id integer not null, scopes text not null,
    microusd integer not null, tokens integer not null, requests integer not null, compute_us integer not null,
    granted_us integer not null, expires_us integer not null, ended_us integer,
    check(microusd >= 0 and tokens >= 0 and requests >= 0 and compute_us >= 0));
create index leases_open on leases(expires_us) where ended_us is null;
create table requests(request_key blob primary key, body blob not null);
create table cards(card_id text primary key, card text not null) without rowid;
create table answers(
    request_key blob primary key, call_id integer not null, card_id text not null,
    input_tokens integer not null, cached_input_tokens integer not null, output_tokens integer not null,
    reasoning_tokens integer, cost_microusd integer not null, price_version text not null,
    provider_request_id text, sent_us integer not null, received_us integer not null, compute_us integer,
    body blob not null);
create table records(
    record_id blob primary key, run_id text not null, dataset text not null, split text not null,
    ordinal integer not null, item_id text not null, request_key blob not null, first_key blob not null,
    from_cache integer not null, item text not null, shard text);
create index records_waiting on records(dataset, split, ordinal) where shard is null;
create index records_of_run on records(run_id, split, ordinal);
create table drops(
    run_id text not null, stage text not null, item_id text not null, reason text not null, detail text,
    score real, threshold real, repeat_of text, primary key(run_id, stage, item_id)) without rowid;
create table decisions(
    decision_id integer primary key, run_id text not null, stage text not null, subject text not null,
    outcome text not null, decision text not null, decided_us integer not null);
create table shards(
    name text primary key, dataset text not null, split text not null, rows integer not null, sha256 text not null,
    size_bytes integer not null, schema_version integer not null, writer text not null, committed_us integer not null
) without rowid;
create table datasets(
    name text not null, version text not null, status text not null, manifest text not null,
    sealed_us integer not null, primary key(name, version)) without rowid;
create table students(
    student_id text primary key, run_id text not null, dataset text not null, facts text not null,
    trained_us integer not null) without rowid;
""",
    _IN_4,
    _IN_5,
    _IN_6,
)
"""The tables of a new journal."""


UPGRADES: Final[dict[int, str]] = {
    1: """
alter table calls add column reserved_compute_us integer not null default 0;
alter table calls add column compute_us integer;
create index calls_claiming on calls(request_key) where state = 'promised';
create view claims as
    select request_key, call_id, owner_id, reserved_us as claimed_us from calls where state = 'promised';
alter table caps rename to caps_1;
create table caps(
    scope text not null, unit text not null, per text not null default 'total',
    cap integer not null, origin text not null, set_us integer not null,
    primary key(scope, unit, per)) without rowid;
insert into caps(scope, unit, cap, origin, set_us) select scope, unit, cap, origin, set_us from caps_1;
drop table caps_1;
create table spans(
    span_id integer primary key, run_id text not null, owner_id integer not null, scopes text not null,
    began_us integer not null, wall_us integer not null);
create table reconciliations(
    reconciliation_id integer primary key, call_id integer not null, before text not null, after text not null,
    microusd_before integer not null, microusd integer, tokens integer, by text not null, reason text not null,
    source_sha256 text, reconciled_us integer not null);
create index reconciliations_of_call on reconciliations(call_id);
create table leases(
    lease_id integer primary key, owner_id integer not null, scopes text not null,
    microusd integer not null, tokens integer not null, requests integer not null, compute_us integer not null,
    granted_us integer not null, expires_us integer not null, ended_us integer,
    check(microusd >= 0 and tokens >= 0 and requests >= 0 and compute_us >= 0));
create index leases_open on leases(expires_us) where ended_us is null;
""",
    2: """
alter table calls add column batch_id text;
alter table calls add column batch_line integer;
create index calls_of_batch on calls(batch_id) where batch_id is not null;
drop view claims;
create view claims as
    select request_key, call_id, owner_id, reserved_us as claimed_us, batch_id from calls where state = 'promised';
create table batches(
    batch_id text primary key, run_id text not null, teacher text not null, identity text not null,
    card_id text not null, owner_id integer not null,
    state text not null check(state in ('intended', 'submitted', 'ended', 'freed')),
    provider_batch_id text, lines integer not null, said text not null default '{}',
    intended_us integer not null, missed_us integer, submitted_us integer, closed_us integer) without rowid;
create table reuses(run_id text not null, record_id blob not null, primary key(run_id, record_id)) without rowid;
create table unreadable(call_id integer primary key, body blob not null);
""",
    3: _IN_4,
    4: _IN_5,
    5: _IN_6,
}
"""What turns a journal of each version into one of the next."""
