-- The states that an order may enter: a copy of the table in fund/model/transitions.py. A test compares the two, row by row.
-- The triggers are AFTER triggers, because a BEFORE trigger of an UPDATE locks each row a second time. Their conditions permit the
-- frequent transitions, because a call of a function for each order costs 5 % of the statement that records outcomes. They are
-- short, because Postgres reads their text again for each statement, and name no late column, because a row is read up to the last.

CREATE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN kind = 'adjustment' AND after = 'posting'
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck')
        WHEN 'posted' THEN kind = 'withdrawal' AND after IN ('sent', 'paid', 'bounced', 'stuck')
        WHEN 'sent' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind = 'withdrawal' AND after IN ('posted', 'sent', 'unknown'))
        ELSE false
    END;
END $$;
COMMENT ON FUNCTION fund.may_become IS 'whether an order of this kind may go from one state to the other, or stay in it';

CREATE FUNCTION fund.refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF fund.may_become(OLD.kind, OLD.state, NEW.state) AND NEW.kind = OLD.kind AND (CASE
        WHEN OLD.state <> 'stuck' THEN NEW.state <> 'stuck' OR NEW.stuck_from = OLD.state
        ELSE NEW.state = OLD.stuck_from OR (NEW.state = 'stuck' AND NEW.stuck_from = OLD.stuck_from)
    END) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% %: % is refused', NEW.kind, NEW.id,
        CASE TG_OP WHEN 'INSERT' THEN format('insert as %s', NEW.state) ELSE format('%s to %s', OLD.state, NEW.state) END
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;

CREATE TRIGGER orders_first_state AFTER INSERT ON fund.orders FOR EACH ROW
    WHEN (NEW.state IS DISTINCT FROM CASE NEW.kind WHEN 'adjustment' THEN 'created' ELSE 'posting' END)
    EXECUTE FUNCTION fund.refuse_transition();
CREATE TRIGGER orders_transition AFTER UPDATE OF state, stuck_from, kind ON fund.orders FOR EACH ROW
    WHEN ((OLD.state = 'posting' AND (NEW.state = 'posted' OR NEW.state = 'refused')) IS NOT TRUE)
    EXECUTE FUNCTION fund.refuse_transition();
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_first_state;
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_transition;
