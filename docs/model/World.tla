-------------------------------- MODULE World --------------------------------
(* Time, and what happens to processes and to the store from outside.           *)
EXTENDS Handover

(* ------------------------------ processes ---------------------------------- *)

Dead(c) == [NewClient EXCEPT !.run = "dead", !.wants = FALSE]

(* What a dead process had sent may arrive all the same.                       *)
LeftBy(cs) == {m \in net : ~(m.live /\ m.from \in cs)}

Dies(c) ==
    /\ Fault("death") /\ client[c].run # "dead" /\ world.deaths < MaxDeaths
    /\ client' = [client EXCEPT ![c] = Dead(c)]
    /\ net' = LeftBy({c})
    /\ world' = [world EXCEPT !.deaths = @ + 1, !.hand = @ \ {c}, !.outlaw[c] = 0]
    /\ UNCHANGED store

StartsAgain(c) ==
    /\ Fault("death") /\ client[c].run = "dead"
    /\ client' = [client EXCEPT ![c] = NewClient]
    /\ world' = [world EXCEPT !.gone = @ \ {c}]
    /\ UNCHANGED <<store, net>>

(* A frozen process needs no action: every step of a process may be put off for *)
(* as long as one likes. Its clock goes on, and so does the kernel's timer.     *)

CutOff(c) ==
    /\ Fault("cut") /\ c \notin world.cut
    /\ world' = [world EXCEPT !.cut = @ \cup {c}]
    /\ UNCHANGED <<store, net, client>>

Heals(c) ==
    /\ c \in world.cut
    /\ world' = [world EXCEPT !.cut = @ \ {c}]
    /\ UNCHANGED <<store, net, client>>

(* Its watch hears nothing, and says nothing of that.                          *)
GoesBlind(c) ==
    /\ Fault("blind") /\ c \notin world.blind
    /\ world' = [world EXCEPT !.blind = @ \cup {c}]
    /\ UNCHANGED <<store, net, client>>

(* ------------------------------ an operator -------------------------------- *)

(* A lock that is removed by hand is not safe while its holder cannot hear of   *)
(* it. The onlooker notes whose it was; see `Tick` for how long that excuses.   *)
Robbed == {c \in Clients : (Trusts(c) \/ Works(c)) /\ Mine(c)}

ByHand(s, restores) ==
    /\ world.byhand < MaxHand
    /\ store' = s
    /\ world' = [world EXCEPT !.byhand = @ + 1, !.hand = @ \cup Robbed, !.restored = @ \/ restores]
    /\ UNCHANGED <<net, client>>

DeletesKey    == Fault("operator") /\ store.lock.lease \in LeaseIds /\ ByHand(Deleted(store), FALSE)
RevokesLease  == Fault("operator") /\ store.lock.lease \in LeaseIds /\ ByHand(LeaseEnds(store, store.lock.lease), FALSE)

(* `release --force`: the lock is moved to a lease of the operator's, and freed *)
(* when its holder has said that it stopped, or after one ttl.                  *)
MovesToQuarantine ==
    /\ Fault("quarantine") /\ store.lock.lease \in LeaseIds /\ world.byhand < MaxHand
    /\ store' = Put(store, Quarantine, TRUE, 0)
    /\ world' = [world EXCEPT !.byhand = @ + 1, !.quarantine =
            [left |-> IF Rule("quarantine") THEN TTL ELSE 0, old |-> store.lock.lease, idx |-> store.idx + 1]]
    /\ UNCHANGED <<net, client>>

SaysItStopped ==
    \E c \in Clients : LET said == store.standby[c] IN
        /\ said.lease = world.quarantine.old
        /\ Rule("word from before") => said.knows >= world.quarantine.idx

LeavesQuarantine ==
    /\ store.lock.lease = Quarantine
    /\ world.quarantine.left = 0 \/ SaysItStopped
    /\ store' = Deleted(store)
    /\ world' = [world EXCEPT !.quarantine = [left |-> 0, old |-> 0, idx |-> 0]]
    /\ UNCHANGED <<net, client>>

(* Everything as it was, but for the numbers of leases: those are never given   *)
(* twice. Leases that lived then live again, for a whole ttl.                   *)
BackUp ==
    /\ Fault("restore") /\ world.backup = <<>>
    /\ world' = [world EXCEPT !.backup = <<store>>]
    /\ UNCHANGED <<store, net, client>>

Restore ==
    /\ Fault("restore") /\ world.backup # <<>> /\ world.byhand < MaxHand
    /\ LET old == world.backup[1]
           back == [old EXCEPT !.next = store.next,
                               !.left = [l \in LeaseIds |-> IF @[l] > 0 THEN TTL ELSE 0]]
       IN store # back /\ ByHand(Swept(back), TRUE)

(* -------------------------------- time ------------------------------------- *)

(* From the calm on nothing goes wrong any more, and whoever can do something   *)
(* does it before the clock goes on: then the lock must be led again soon.      *)
Calm ==
    /\ ~world.calm /\ IdleMax > 0
    /\ world' = [world EXCEPT !.calm = TRUE, !.cut = {}, !.blind = {}]
    /\ UNCHANGED <<store, net, client>>

(* A clock that is slow misses ticks: here, as many as the margin has.         *)
MaySlip == IF Fault("drift") /\ world.slips < Margin THEN {{}} \cup {{c} : c \in Clients} ELSE {{}}

(* The guard and the kernel's timer end what still works at the deadline; what  *)
(* lost its key or its lease has its stop time, and no more.                    *)
IsKilled(c, slips, good) ==
    Rule("guard") /\ Works(c) /\ (good = 0 \/ (client[c].phase \in {"stop", "fall"} /\ c \notin slips))

Ticked(c, slips) ==
    LET good == IF c \in slips THEN client[c].good ELSE Less(client[c].good) IN
    IF IsKilled(c, slips, good) THEN Dead(c)
    ELSE [client[c] EXCEPT !.good = good, !.wait = IF c \in slips THEN @ ELSE Less(@)]

Tick(busy) ==
    /\ ~(world.calm /\ busy)
    \* Who can hear of a loss by hand does so within a tick.
    /\ \A c \in world.hand : Hears(c) => ~Trusts(c)
    /\ \E slips \in MaySlip :
        /\ client' = [c \in Clients |-> Ticked(c, slips)]
        /\ net' = {[m EXCEPT !.good = IF m.live /\ m.from \notin slips THEN Less(@) ELSE @] :
                   m \in LeftBy({c \in Clients : client'[c].run = "dead"})}
        /\ LET working == {c \in world.hand : client'[c].run # "dead" /\ (Works(c) \/ Trusts(c))}
               fresh == {c \in working : Deaf(c) /\ world.outlaw[c] = 0}
           IN world' = [world EXCEPT
            !.slips = @ + Cardinality(slips),
            \* Only a rule that is switched off lets one trust that is not deaf. That excuses nothing.
            !.hand = {c \in working \ fresh : Deaf(c) \/ ~Trusts(c)},
            !.outlaw = [c \in Clients |-> IF c \in fresh THEN TTL ELSE Less(@[c])],
            !.quarantine.left = Less(@),
            !.idle = IF ~world.calm \/ world.refused \/ (\E c \in Clients : Works(c))
                        \/ ~(\E c \in Clients : Up(c) /\ client[c].wants) THEN 0 ELSE @ + 1]
    /\ store' = Aged(store)
=============================================================================
