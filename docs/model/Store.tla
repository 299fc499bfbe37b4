------------------------------- MODULE Store -------------------------------
(* What the backend does. Each operator takes the store as it is and says what  *)
(* it is afterwards. Every change of the lock moves the index, and the index of *)
(* a grant is its fencing token.                                                *)
EXTENDS Base

NewStore ==
    [idx |-> 1, next |-> 1, left |-> [l \in LeaseIds |-> 0], lock |-> FreeLock, word |-> NoWord,
     standby |-> [c \in Clients |-> NoRecord], invite |-> [lease |-> 0, to |-> 0, number |-> 0]]

Lives(s, l) == l = Quarantine \/ (l \in LeaseIds /\ s.left[l] > 0)

(* What a read says of the lock: of an absent key, when it was seen absent.     *)
LastChange(s) == IF s.lock.lease = 0 THEN s.idx ELSE s.lock.idx

Free(s, word) == [s EXCEPT !.lock = FreeLock, !.word = word, !.idx = @ + 1]

(* What stood under the key is the last word, if nobody left another one. *)
Deleted(s) == Free(s, [released |-> FALSE, knows |-> s.lock.knows])

(* What stands under leases that live no more goes. *)
Swept(s) ==
    LET t == IF s.lock.lease # 0 /\ ~Lives(s, s.lock.lease) THEN Deleted(s) ELSE s
    IN [t EXCEPT
        !.standby = [c \in Clients |-> IF Lives(s, @[c].lease) THEN @[c] ELSE NoRecord],
        !.invite = IF Lives(s, @.lease) THEN @ ELSE [lease |-> 0, to |-> 0, number |-> 0]]

LeaseEnds(s, l) == IF l \in LeaseIds THEN Swept([s EXCEPT !.left[l] = 0]) ELSE s

Aged(s) == Swept([s EXCEPT !.left = [l \in LeaseIds |-> Less(@[l])]])

Granted(s) == [s EXCEPT !.left[s.next] = TTL, !.next = @ + 1]

Put(s, lease, given, knows) ==
    [s EXCEPT !.idx = @ + 1, !.lock = [lease |-> lease, idx |-> s.idx + 1, given |-> given, knows |-> knows]]

(* Verbs of a grant carry its index: a late one finds nothing. *)
Stands(s, rule, m) == s.lock.lease = m.lease /\ (Rule(rule) => s.lock.idx = m.idx)

AfterAcquire(s, m) ==
    IF Lives(s, m.lease) /\ s.lock.lease = 0 THEN Put(s, m.lease, FALSE, m.knows) ELSE s

AfterRelease(s, m) == IF Stands(s, "release index", m) THEN Free(s, m.word) ELSE s

HeirStands(s, m) == Rule("heir stands") => s.standby[m.heir].lease = m.heirLease

AfterTransfer(s, m) ==
    IF Stands(s, "transfer index", m) /\ Lives(s, m.heirLease) /\ HeirStands(s, m)
    THEN Put(s, m.heirLease, TRUE, m.word.knows) ELSE s

AfterRenewal(s, m) == IF Lives(s, m.lease) THEN [s EXCEPT !.left[m.lease] = TTL] ELSE s
=============================================================================
