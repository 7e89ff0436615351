-- title: Has the ledger been altered since a checkpoint?
-- answer: One row for each signed checkpoint asked for: what it covers, and what has come since. The ledger itself is
--   checked on the way: every event against its commitment, the tree against every signed root. The notes and
--   problems say what was found. --record proves one record, and corpusgen prove writes the proof down for others.
-- cannot tell: Whether what was entered was true; a rewrite of everything by whoever has the key: keep a checkpoint
--   elsewhere and name it here.
-- reads the ledger: yes
-- parameter: checkpoint count any | Only the checkpoint of this size
-- parameter: kept file any | A checkpoint kept elsewhere, which must fit too
-- parameter: record record any | Prove that this record is in a sealed dataset the ledger tells of
select size as checkpoint, lower(hex(root)) as root, key_id, signed_time,
    (select count(*) from events where seq > size) as events_since,
    (select count(*) from events where seq <= size and erased) as erased_within,
    (select string_agg(distinct kind, ', ' order by kind) from events where seq > size) as kinds_since
from checkpoints
where $checkpoint::bigint is null or size = $checkpoint::bigint
order by size
