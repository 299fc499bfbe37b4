----------------------------- MODULE ClusterLock -----------------------------
(* The protocol of cluster-lock: what can happen, and what must never.          *)
(* README.md says in plain words what is modelled and what is not.              *)
EXTENDS World

NewWorld ==
    [calm |-> FALSE, cut |-> {}, blind |-> {}, late |-> 0, ends |-> 0, slips |-> 0, deaths |-> 0, byhand |-> 0,
     ask |-> 0, gone |-> {}, backup |-> <<>>, quarantine |-> [left |-> 0, old |-> 0, idx |-> 0],
     hand |-> {}, outlaw |-> [c \in Clients |-> 0], refused |-> FALSE, restored |-> FALSE, top |-> 0, bad |-> {}, idle |-> 0]

Init ==
    /\ store = NewStore /\ net = {} /\ client = [c \in Clients |-> NewClient] /\ world = NewWorld

(* What a process does, and what the network brings, when nothing goes wrong.  *)
Acts(c) ==
    \/ GetLease(c) \/ Renew(c) \/ TimeIsUp(c) \/ HasStopped(c)
    \/ Acquire(c) \/ BeginWork(c) \/ GiveBack(c) \/ HearsOfLoss(c) \/ HearsOfHolder(c) \/ Reconcile(c)
    \/ Announce(c) \/ Withdraw(c) \/ Answer(c) \/ Drain(c) \/ HasDrained(c) \/ Transfer(c) \/ StepDown(c)
    \/ \E d \in Clients : Invite(c, d)
    \/ \E m \in net : \/ RenewalAnswered(c, m) \/ AcquireAnswered(c, m)
                      \/ ReleaseAnswered(c, m) \/ TransferAnswered(c, m)

Progress == \/ \E c \in Clients : Acts(c)
            \/ \E m \in net : m.live /\ Arrives(m)
            \/ LeavesQuarantine

Trouble ==
    \/ \E m \in net : (~m.live /\ Arrives(m)) \/ IsLost(m) \/ IsGivenUp(m)
    \/ \E c \in Clients :
        \/ EndWork(c) \/ ReleaseUnanswered(c) \/ TransferUnanswered(c) \/ Leave(c) \/ FollowsNoMore(c)
        \/ Dies(c) \/ StartsAgain(c) \/ CutOff(c) \/ Heals(c) \/ GoesBlind(c)
    \/ Ask \/ DeletesKey \/ RevokesLease \/ MovesToQuarantine \/ BackUp \/ Restore

Next == Progress \/ Trouble \/ Calm \/ Tick(world.calm /\ ENABLED Progress)

Spec == Init /\ [][Next]_vars

(* ------------------------------ what must hold ----------------------------- *)

(* Never two that work. One whose lock was taken by hand while it could not     *)
(* hear of it is told apart: for one ttl at most, and on the smaller token. A    *)
(* store that was set back counts anew: then its token need not be the smaller. *)
Excused(c, d) ==
    IF world.restored THEN world.outlaw[c] > 0 \/ c \in world.hand
    ELSE world.outlaw[c] > 0 /\ client[c].tok < client[d].tok
OneWorks == \A c, d \in Clients : c # d /\ Works(c) /\ Works(d) => Excused(c, d) \/ Excused(d, c)

(* Tokens grow along the terms that work, and nobody does what he must not.     *)
NothingBad == world.bad = {}

(* A lock that can be had is had, and no lease that nobody works under keeps it.*)
IsHadSoon == world.idle <= IdleMax

Symmetry == Permutations(Clients)
=============================================================================
