------------------------------- MODULE Base -------------------------------
(* What all parts of the model share: its scope, its state, and a few words.   *)
(*                                                                             *)
(* There is one lock. Time goes in ticks. Every process counts them on its own *)
(* clock, and the store on its own. A rule is a name; `Broken` has those that  *)
(* are switched off, to see what goes wrong without them.                      *)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Clients,     \* the processes
    TTL,         \* ticks that a lease lasts without a renewal
    Margin,      \* ticks between the deadline and the end of the ttl
    StopTime,    \* ticks that work has to stop before the deadline
    Settle,      \* ticks to wait under a lock that was found free
    Faults,      \* what may go wrong here
    Broken,      \* the rules that are switched off
    MaxLeases,   \* leases that are given before the calm
    MaxLate,     \* requests that arrive late or twice
    MaxEnds,     \* terms that end because somebody wants it
    MaxDeaths,   \* processes that die
    MaxHand,     \* times that an operator uses his hands
    IdleMax      \* ticks in the calm that the lock may go without work

VARIABLES
    store,       \* what the backend has
    net,         \* requests on their way there, and answers on their way back
    client,      \* each process
    world        \* faults, the operator, and what an onlooker writes down

vars == <<store, net, client, world>>

Rule(r)   == r \notin Broken
Fault(f)  == f \in Faults /\ ~world.calm
Nobody    == 0
Full      == TTL - (IF Rule("margin") THEN Margin ELSE 0)
             + (IF Rule("one ttl") THEN 0 ELSE TTL)
Max(a, b) == IF a > b THEN a ELSE b
Less(n)   == IF n > 0 THEN n - 1 ELSE 0

(* Leases have numbers. The last ones are for the calm, the very last is the    *)
(* quarantine's, which its owner renews.                                        *)
LeaseIds == 1 .. (MaxLeases + 2 * Cardinality(Clients))
Quarantine == MaxLeases + 2 * Cardinality(Clients) + 1

(* Tokens are compared with what was heard of before only where stores are set  *)
(* back. Elsewhere nobody needs to remember them.                               *)
Remembers == "restore" \in Faults \/ "quarantine" \in Faults
Noted(n)  == IF Remembers THEN n ELSE 0

(* A process. `good`: ticks until its deadline, on its own clock. `tok`: the    *)
(* index of its grant, 0 if it has none. `over`: of the last grant that it gave *)
(* away. `knows`: the largest token that it heard of or held.                   *)
NewClient ==
    [run |-> "up", phase |-> "none", lease |-> 0, good |-> 0, tok |-> 0, origin |-> "free",
     wait |-> 0, over |-> 0, follows |-> TRUE, wants |-> TRUE, knows |-> 0, heir |-> Nobody,
     heirLease |-> 0, again |-> FALSE, told |-> FALSE]

(* Its grant is over; so is its lease. What says nothing any more is forgotten,  *)
(* so that what is the same looks the same.                                     *)
Dropped(r)   == [r EXCEPT !.tok = 0, !.origin = "free", !.wait = 0, !.told = FALSE, !.heir = Nobody, !.heirLease = 0]
Leaseless(r) == [Dropped(r) EXCEPT !.phase = "none", !.lease = 0, !.good = 0, !.over = 0]

Up(c)      == client[c].run = "up"
Works(c)   == client[c].run # "dead" /\ client[c].phase \in {"work", "invite", "drain", "stop", "fall"}
Trusts(c)  == client[c].run # "dead" /\ client[c].phase \in {"settle", "work", "invite", "drain"}
Holds(c)   == client[c].tok # 0 /\ client[c].phase \in {"settle", "work", "invite", "drain", "give"}
Trusted(c) == client[c].lease # 0 /\ client[c].good > StopTime /\ client[c].phase \notin {"fall", "none"}
Reaches(c) == Up(c) /\ c \notin world.cut
Deaf(c)    == ~Reaches(c) \/ c \in world.blind

NoRecord == [lease |-> 0, knows |-> 0, at |-> 0, answer |-> 0]
NoWord   == [released |-> FALSE, knows |-> 0]
FreeLock == [lease |-> 0, idx |-> 0, given |-> FALSE, knows |-> 0]

(* The lock is as c believes when it works. *)
Mine(c) == store.lock.lease = client[c].lease /\ store.lock.idx = client[c].tok
=============================================================================
