-- The locks of cluster-lock in PostgreSQL, version 1. One function for each verb: one request, one transaction.
--
-- Who holds a lock is said by cluster_lock.key.lease, and only as long as that lease lives. Whether it lives is judged
-- by clock_timestamp() and after its row is locked: now() is when a transaction began, and a lease may have ended, or
-- been renewed, while we waited for the row. Who changes keys of a prefix takes turns at its row of cluster_lock.space,
-- so that indexes become visible in their order; a renewal takes no turn.

CREATE SCHEMA IF NOT EXISTS cluster_lock;

-- Fencing tokens and indexes. Apart from the tables: it goes on when they are emptied or dropped.
CREATE SEQUENCE IF NOT EXISTS cluster_lock.token MAXVALUE 9007199254740992;

CREATE TABLE IF NOT EXISTS cluster_lock.space (
    prefix text COLLATE "C" PRIMARY KEY,
    index  bigint NOT NULL DEFAULT 0,  -- of the last change
    swept  bigint NOT NULL DEFAULT 0   -- positions before it are forgotten
);

CREATE TABLE IF NOT EXISTS cluster_lock.lease (
    id         text COLLATE "C" PRIMARY KEY,
    holder     text NOT NULL,
    ttl        double precision NOT NULL,  -- seconds
    expires_at timestamptz NOT NULL
);

-- A key that is free has a row without a lease and a record. One with a record and no lease was put there by a person.
-- No index has the lease, which changes with each holder: an update that no index sees is a cheap one.
CREATE TABLE IF NOT EXISTS cluster_lock.key (
    prefix     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    lease      text COLLATE "C",
    index      bigint NOT NULL DEFAULT nextval('cluster_lock.token'),
    record     bytea,
    previous   bytea,  -- what was left under it by the holder before
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (prefix, name)
);

-- What a person puts there, too, is something that a turn could have put there. Apart from the table, so that tables get
-- it that were made before it.
ALTER TABLE cluster_lock.key DROP CONSTRAINT IF EXISTS of_a_turn;
ALTER TABLE cluster_lock.key ADD CONSTRAINT of_a_turn
    CHECK (index BETWEEN 1 AND 9007199254740992 AND (lease IS NULL OR record IS NOT NULL)) NOT VALID;

-- Which server, with which tables, this was when somebody looked last, and since when nothing can have been lost.
CREATE TABLE IF NOT EXISTS cluster_lock.server (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    version   integer NOT NULL,
    system    text,
    timeline  text,
    started   timestamptz,
    base      timestamptz NOT NULL
);

-- Tokens that were given may be lost, be it with a backup, a replica that was behind, or a schema that was dropped. From
-- here on they are larger than all that a sequence can have reached that was put to an earlier time.
-- As its owner: who may draw tokens may not set them.
CREATE OR REPLACE FUNCTION cluster_lock.pass_lost_tokens() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    now_in_microseconds bigint := extract(epoch FROM clock_timestamp()) * 1000000;
BEGIN
    IF now_in_microseconds > nextval('cluster_lock.token') THEN
        PERFORM setval('cluster_lock.token', now_in_microseconds);
    END IF;
END $$;

-- Seconds until a new holder is safe: who holds a lease that this server has never seen, because another server
-- was in its place, the tables were made anew or restored, or a part of them was lost, has stopped one ttl after that.
CREATE OR REPLACE FUNCTION cluster_lock.unsafe_for(a_ttl double precision) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    my_timeline text := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    my_system text := (SELECT system_identifier || '.' || 'cluster_lock.lease'::regclass::oid FROM pg_control_system());
    known_base timestamptz;
BEGIN
    SELECT base INTO known_base FROM cluster_lock.server
        WHERE (system, timeline, started) IS NOT DISTINCT FROM (my_system, my_timeline, pg_postmaster_start_time());
    IF NOT FOUND THEN
        UPDATE cluster_lock.server
            SET system = my_system, timeline = my_timeline, started = pg_postmaster_start_time(),
                -- By a restart alone nothing that was promised later than it is lost.
                base = CASE WHEN (system, timeline) IS NOT DISTINCT FROM (my_system, my_timeline)
                    THEN pg_postmaster_start_time() ELSE clock_timestamp() END
            WHERE (system, timeline, started) IS DISTINCT FROM (my_system, my_timeline, pg_postmaster_start_time());
        IF FOUND THEN  -- so by one who comes, and the others wait for that
            PERFORM cluster_lock.pass_lost_tokens();
        END IF;
        SELECT base INTO known_base FROM cluster_lock.server;
    END IF;
    IF known_base > clock_timestamp() THEN  -- the clock was set back: nobody waits for it to be there again
        UPDATE cluster_lock.server SET base = clock_timestamp() WHERE base > clock_timestamp();
        known_base := clock_timestamp();
    END IF;
    RETURN greatest(0, extract(epoch FROM coalesce(known_base, clock_timestamp()) - clock_timestamp())::double precision
        + greatest(a_ttl, (SELECT max(ttl) FROM cluster_lock.lease)));
END $$;

-- Wait for our turn; then get the index of our change. It is drawn after the wait: the order of indexes is that of
-- turns.
CREATE OR REPLACE FUNCTION cluster_lock.take_turn(a_prefix text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM cluster_lock.space WHERE prefix = a_prefix FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO cluster_lock.space (prefix) VALUES (a_prefix) ON CONFLICT DO NOTHING;
        PERFORM 1 FROM cluster_lock.space WHERE prefix = a_prefix FOR UPDATE;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.next_index(a_prefix text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    drawn bigint;
BEGIN
    UPDATE cluster_lock.space SET index = nextval('cluster_lock.token') WHERE prefix = a_prefix RETURNING index INTO drawn;
    RETURN drawn;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.tell(a_prefix text, a_name text) RETURNS void
LANGUAGE sql AS $$ SELECT pg_notify('cluster_lock_' || md5(a_prefix), md5(a_name)) $$;

CREATE OR REPLACE FUNCTION cluster_lock.lives(a_lease text) RETURNS boolean
LANGUAGE sql AS $$ SELECT EXISTS (
    SELECT FROM cluster_lock.lease WHERE id = a_lease AND expires_at > clock_timestamp()) $$;

-- Does the lease live? Its row stays locked: no renewal comes between the answer and what we do next. A dead one is
-- deleted, so that none comes after it either.
CREATE OR REPLACE FUNCTION cluster_lock.lives_or_ends(a_lease text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    ends timestamptz;
BEGIN
    SELECT expires_at INTO ends FROM cluster_lock.lease WHERE id = a_lease FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF ends > clock_timestamp() THEN
        RETURN true;
    END IF;
    DELETE FROM cluster_lock.lease WHERE id = a_lease;
    RETURN false;
END $$;

-- Verbs. Of a lease that is gone `gone` is true and nothing was done.

CREATE OR REPLACE FUNCTION cluster_lock.grant_lease(
    a_id text, a_holder text, a_ttl double precision, OUT unsafe double precision)
LANGUAGE plpgsql AS $$
BEGIN
    unsafe := cluster_lock.unsafe_for(a_ttl);
    IF unsafe > 0 THEN
        RETURN;
    END IF;
    DELETE FROM cluster_lock.lease WHERE id IN (
        SELECT id FROM cluster_lock.lease WHERE expires_at < clock_timestamp() - interval '1 hour'
        LIMIT 100 FOR UPDATE SKIP LOCKED);
    INSERT INTO cluster_lock.lease (id, holder, ttl, expires_at)
        VALUES (a_id, a_holder, a_ttl, clock_timestamp() + make_interval(secs => a_ttl))
        ON CONFLICT (id) DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.renew(a_lease text, OUT gone boolean)
LANGUAGE plpgsql AS $$
BEGIN
    gone := NOT cluster_lock.lives_or_ends(a_lease);
    IF NOT gone THEN
        UPDATE cluster_lock.lease SET expires_at = clock_timestamp() + make_interval(secs => ttl) WHERE id = a_lease;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.revoke(a_prefix text, a_lease text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    PERFORM cluster_lock.take_turn(a_prefix);
    DELETE FROM cluster_lock.lease WHERE id = a_lease;
    FOR held IN SELECT name FROM cluster_lock.key WHERE prefix = a_prefix AND lease = a_lease LOOP
        UPDATE cluster_lock.key
            SET lease = NULL, record = NULL, previous = record, changed_at = clock_timestamp(),
                index = cluster_lock.next_index(a_prefix)
            WHERE prefix = a_prefix AND name = held.name;
        PERFORM cluster_lock.tell(a_prefix, held.name);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.acquire(
    a_prefix text, a_name text, a_lease text, a_record bytea,
    OUT gone boolean, OUT stranger boolean, OUT unsafe double precision,
    OUT token bigint, OUT stands bytea, OUT left_before bytea)
LANGUAGE plpgsql AS $$
DECLARE
    old cluster_lock.key;
    my_ttl double precision;
BEGIN
    gone := false;
    stranger := false;
    unsafe := 0;
    SELECT * INTO old FROM cluster_lock.key WHERE prefix = a_prefix AND name = a_name;
    IF old.lease <> a_lease AND cluster_lock.lives(old.lease) THEN
        gone := NOT cluster_lock.lives(a_lease);
        RETURN;  -- a look is enough for a no: a crowd that waits takes no turns
    END IF;
    PERFORM cluster_lock.take_turn(a_prefix);
    SELECT ttl INTO my_ttl FROM cluster_lock.lease WHERE id = a_lease AND expires_at > clock_timestamp();
    IF NOT FOUND THEN
        gone := true;
        RETURN;
    END IF;
    SELECT * INTO old FROM cluster_lock.key WHERE prefix = a_prefix AND name = a_name FOR UPDATE;
    IF old.lease = a_lease AND EXISTS (
            SELECT FROM cluster_lock.space s WHERE s.prefix = a_prefix AND s.index > 0 AND s.index < old.index) THEN
        stranger := true;  -- a person has copied our lease: no turn has reached that index
        RETURN;
    END IF;
    IF old.lease = a_lease THEN
        token := old.index;
        stands := old.record;
        left_before := old.previous;
        RETURN;
    END IF;
    IF old.lease IS NULL AND old.record IS NOT NULL THEN
        stranger := true;
        RETURN;
    END IF;
    IF old.lease IS NOT NULL AND cluster_lock.lives_or_ends(old.lease) THEN
        RETURN;
    END IF;
    unsafe := cluster_lock.unsafe_for(my_ttl);
    IF unsafe > 0 THEN
        RETURN;
    END IF;
    token := cluster_lock.next_index(a_prefix);
    stands := a_record;
    left_before := coalesce(old.record, old.previous);
    INSERT INTO cluster_lock.key (prefix, name, lease, index, record, previous)
        VALUES (a_prefix, a_name, a_lease, token, a_record, left_before)
        ON CONFLICT (prefix, name) DO UPDATE
            SET lease = excluded.lease, index = excluded.index, record = excluded.record,
                previous = excluded.previous, changed_at = clock_timestamp();
    PERFORM cluster_lock.tell(a_prefix, a_name);
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.release(
    a_prefix text, a_name text, a_lease text, a_index bigint, a_farewell bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cluster_lock.take_turn(a_prefix);
    UPDATE cluster_lock.key
        SET lease = NULL, record = NULL, previous = a_farewell, changed_at = clock_timestamp(),
            index = cluster_lock.next_index(a_prefix)
        WHERE prefix = a_prefix AND name = a_name AND lease = a_lease AND index = a_index;
    IF FOUND THEN
        PERFORM cluster_lock.tell(a_prefix, a_name);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.transfer(
    a_prefix text, a_name text, a_lease text, a_index bigint, a_heirs_key text, a_heir text, a_record bytea,
    OUT done boolean)
LANGUAGE plpgsql AS $$
DECLARE
    old cluster_lock.key;
BEGIN
    done := false;
    PERFORM cluster_lock.take_turn(a_prefix);
    SELECT * INTO old FROM cluster_lock.key WHERE prefix = a_prefix AND name = a_name FOR UPDATE;
    IF NOT FOUND OR old.lease IS NULL THEN
        RETURN;
    END IF;
    IF old.lease = a_heir AND old.record = a_record AND old.index > a_index THEN
        done := true;  -- by an earlier copy of this request whose answer was lost
        RETURN;
    END IF;
    IF old.lease <> a_lease OR old.index <> a_index
            OR NOT cluster_lock.lives_or_ends(a_lease) OR NOT cluster_lock.lives_or_ends(a_heir) THEN
        RETURN;
    END IF;
    PERFORM 1 FROM cluster_lock.key WHERE prefix = a_prefix AND name = a_heirs_key AND lease = a_heir;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE cluster_lock.key
        SET lease = a_heir, record = a_record, previous = record, changed_at = clock_timestamp(),
            index = cluster_lock.next_index(a_prefix)
        WHERE prefix = a_prefix AND name = a_name;
    PERFORM cluster_lock.tell(a_prefix, a_name);
    done := true;
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.announce(
    a_prefix text, a_name text, a_lease text, a_record bytea, OUT gone boolean)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cluster_lock.take_turn(a_prefix);
    gone := NOT cluster_lock.lives(a_lease);
    IF gone THEN
        RETURN;
    END IF;
    INSERT INTO cluster_lock.key (prefix, name, lease, index, record)
        VALUES (a_prefix, a_name, a_lease, cluster_lock.next_index(a_prefix), a_record)
        ON CONFLICT (prefix, name) DO UPDATE
            SET lease = excluded.lease, index = excluded.index, record = excluded.record,
                previous = NULL, changed_at = clock_timestamp();
    PERFORM cluster_lock.tell(a_prefix, a_name);
    PERFORM cluster_lock.sweep(a_prefix);
END $$;

CREATE OR REPLACE FUNCTION cluster_lock.withdraw(a_prefix text, a_name text, a_lease text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cluster_lock.take_turn(a_prefix);
    UPDATE cluster_lock.key
        SET lease = NULL, record = NULL, changed_at = clock_timestamp(), index = cluster_lock.next_index(a_prefix)
        WHERE prefix = a_prefix AND name = a_name AND lease = a_lease;
    IF FOUND THEN
        PERFORM cluster_lock.tell(a_prefix, a_name);
    END IF;
END $$;

-- Rows of keys that nobody holds and nobody touched for an hour. Locks stay whose rows have the word of a holder, the last
-- one's or that of one whose lease is over: this clock may have jumped. We have the turn.
CREATE OR REPLACE FUNCTION cluster_lock.sweep(a_prefix text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    last_swept bigint;
BEGIN
    WITH gone AS (
        DELETE FROM cluster_lock.key
            WHERE prefix = a_prefix AND (coalesce(record, previous) IS NULL OR NOT starts_with(name, 'leader/'))
                AND (lease IS NULL) = (record IS NULL) AND changed_at < clock_timestamp() - interval '1 hour'
                AND (lease IS NULL OR NOT EXISTS (
                    SELECT FROM cluster_lock.lease l
                        WHERE l.id = lease AND l.expires_at > clock_timestamp() - interval '1 hour'))
            RETURNING index)
    SELECT max(index) INTO last_swept FROM gone;
    IF last_swept IS NOT NULL THEN
        -- A person's row may have an index that no turn has reached, and nobody could wait behind such a position.
        UPDATE cluster_lock.space SET swept = greatest(swept, least(last_swept, index)) WHERE prefix = a_prefix;
    END IF;
END $$;

-- What stands under the names, in one view of one moment. `held`: by a lease that lives, for `ends_in` seconds more.
CREATE OR REPLACE FUNCTION cluster_lock.read(a_prefix text, a_names text[])
RETURNS TABLE (name text, lease text, index bigint, record bytea, held boolean, ends_in double precision,
               ttl double precision, space_index bigint, swept bigint)
LANGUAGE sql STABLE AS $$
    SELECT k.name, k.lease, k.index, k.record, l.id IS NOT NULL, extract(epoch FROM l.expires_at - clock_timestamp())::double precision,
           l.ttl, coalesce(s.index, 0), coalesce(s.swept, 0)
        FROM (SELECT 1) AS always
        LEFT JOIN cluster_lock.space s ON s.prefix = a_prefix
        LEFT JOIN cluster_lock.key k ON k.prefix = a_prefix AND k.name = ANY (a_names)
        LEFT JOIN cluster_lock.lease l ON l.id = k.lease AND l.expires_at > clock_timestamp()
$$;

-- Leases that have more time left than they were given for: the clock was set back. From now on they have that, which is
-- as much as any renewal gives.
CREATE OR REPLACE FUNCTION cluster_lock.shorten(ids text[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE cluster_lock.lease SET expires_at = clock_timestamp() + make_interval(secs => ttl)
        WHERE id = ANY (ids) AND expires_at > clock_timestamp() + make_interval(secs => ttl)
$$;

-- What stands under names that begin so; `everything`: also what nobody holds. An index that no turn has reached is a
-- person's, and told as that of the last turn.
CREATE OR REPLACE FUNCTION cluster_lock.scan(a_prefix text, a_begin text, everything boolean)
RETURNS TABLE (name text, lease text, index bigint, record bytea)
LANGUAGE sql STABLE AS $$
    SELECT k.name, l.id, least(k.index, nullif(s.index, 0)), k.record
        FROM cluster_lock.key k
        LEFT JOIN cluster_lock.space s ON s.prefix = a_prefix
        LEFT JOIN cluster_lock.lease l ON l.id = k.lease AND l.expires_at > clock_timestamp()
        WHERE k.prefix = a_prefix AND starts_with(k.name, a_begin) AND k.record IS NOT NULL
            AND (l.id IS NOT NULL OR (everything AND k.lease IS NULL))
        ORDER BY k.index
$$;

CREATE OR REPLACE FUNCTION cluster_lock.lease_times(ids text[])
RETURNS TABLE (id text, ttl double precision, ends_in double precision)
LANGUAGE sql STABLE AS $$
    SELECT l.id, l.ttl, extract(epoch FROM l.expires_at - clock_timestamp())::double precision
        FROM cluster_lock.lease l WHERE l.id = ANY (ids) AND l.expires_at > clock_timestamp()
$$;

CREATE OR REPLACE FUNCTION cluster_lock.node() RETURNS TABLE (system text, version text, told_at double precision)
LANGUAGE sql STABLE AS $$
    SELECT system_identifier::text, current_setting('server_version'), extract(epoch FROM clock_timestamp())::double precision
        FROM pg_control_system()
$$;

-- Whatever stood here before: from now on nothing is lost.
INSERT INTO cluster_lock.server (version, system, timeline, started, base)
    SELECT 1, system_identifier || '.' || 'cluster_lock.lease'::regclass::oid, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
            pg_postmaster_start_time(), clock_timestamp()
        FROM pg_control_system()
    ON CONFLICT (one) DO UPDATE SET version = excluded.version, base = excluded.base;

SELECT cluster_lock.pass_lost_tokens();
