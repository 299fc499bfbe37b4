------------------------------ MODULE Network ------------------------------
(* Requests and answers. One that is `live` has somebody who waits for it. One  *)
(* that nobody waits for any more may arrive all the same, at any later moment: *)
(* after a time-out, or because something on the way sent it twice.             *)
EXTENDS Store

Live(c, kinds) == {m \in net : m.live /\ m.from = c /\ m.kind \in kinds}
Waits(c, kinds) == Live(c, kinds) # {}

Stray(m) == [m EXCEPT !.live = FALSE, !.good = 0, !.known = 0, !.under = 0]
Without(m) == net \ {m}

Request(c, kind, idx, word) ==
    [kind |-> kind, from |-> c, live |-> TRUE, stage |-> "asked", lease |-> client[c].lease, idx |-> idx,
     under |-> IF kind = "renew" THEN client[c].tok ELSE 0,
     good |-> IF kind = "renew" THEN Full ELSE 0, knows |-> Noted(client[c].knows), known |-> Noted(client[c].knows),
     word |-> word, heir |-> client[c].heir, heirLease |-> client[c].heirLease,
     mine |-> FALSE, given |-> FALSE, was |-> FALSE]

(* It arrives, the store acts, and the answer goes back, if somebody waits.    *)
(* A copy of it may arrive once more. The answer that somebody else holds the   *)
(* lock changes nothing, and is left out.                                       *)
Answered(m, answer, copies) ==
    net' = (net \ {m}) \cup (IF m.live /\ answer.stage # "held" THEN {answer} ELSE {}) \cup (IF copies THEN {Stray(m)} ELSE {})

(* Of a renewal: the read of the lock that follows it is a part of it.         *)
Outcome(m) == [m EXCEPT !.stage = IF Lives(store, m.lease) THEN "done" ELSE "gone",
                        !.mine = store.lock.lease = m.lease, !.idx = LastChange(store)]

AcquireOutcome(m) ==
    LET after == AfterAcquire(store, m) IN
    [m EXCEPT !.stage = IF after.lock.lease = m.lease THEN "done" ELSE "held",
              !.idx = after.lock.idx, !.given = after.lock.given, !.was = store.lock.lease # 0,
              !.word = IF store.lock.lease = 0 THEN store.word ELSE [released |-> FALSE, knows |-> store.lock.knows]]

MayCopy == {FALSE} \cup (IF Fault("twice") /\ world.late < MaxLate THEN {TRUE} ELSE {})

Arrives(m) ==
    /\ m.stage = "asked"
    /\ \E copies \in MayCopy :
        /\ world' = [world EXCEPT
                !.late = @ + (IF copies THEN 1 ELSE 0),
                !.bad = IF m.kind = "transfer" /\ store # AfterTransfer(store, m)
                        THEN @ \cup (IF m.heir \in world.gone THEN {"given to the dead"} ELSE {})
                               \cup (IF client[m.heir].run # "dead" /\ ~client[m.heir].wants THEN {"given to one who left"} ELSE {})
                        ELSE @]
        /\ CASE m.kind = "renew" ->
                /\ store' = AfterRenewal(store, m)
                /\ Answered(m, Outcome(m), copies)
             [] m.kind = "acquire" ->
                /\ store' = AfterAcquire(store, m)
                /\ Answered(m, AcquireOutcome(m), copies)
             [] m.kind = "release" ->
                /\ store' = AfterRelease(store, m)
                /\ Answered(m, [m EXCEPT !.stage = "done"], copies)
             [] m.kind = "transfer" ->
                /\ store' = AfterTransfer(store, m)
                /\ Answered(m, [m EXCEPT !.stage = IF store' # store THEN "done" ELSE "refused"], copies)
    /\ UNCHANGED client

(* The answer is lost. Who waited for it asks again. (A request that is lost is *)
(* one that was not sent; a renewal that is not answered is one that hangs.)    *)
IsLost(m) ==
    /\ Fault("late") /\ m.live /\ m.kind = "acquire" /\ m.stage = "done" /\ world.late < MaxLate
    /\ net' = Without(m)
    /\ world' = [world EXCEPT !.late = @ + 1]
    /\ UNCHANGED <<store, client>>

(* Who asked waits no more. The request may arrive yet. *)
IsGivenUp(m) ==
    /\ Fault("late") /\ m.live /\ m.stage = "asked" /\ world.late < MaxLate /\ m.kind \in {"renew", "acquire"}
    /\ net' = Without(m) \cup {Stray(m)}
    /\ world' = [world EXCEPT !.late = @ + 1]
    /\ UNCHANGED <<store, client>>
=============================================================================
