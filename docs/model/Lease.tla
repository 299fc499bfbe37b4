------------------------------- MODULE Lease -------------------------------
(* One process and its lease: it is granted, renewed, and trusted until the     *)
(* deadline, which counts from the moment before the request was sent.          *)
EXTENDS Network

GetLease(c) ==
    /\ Reaches(c) /\ client[c].phase = "none"
    /\ store.next <= MaxLeases \/ (world.calm /\ store.next \in LeaseIds)
    /\ store' = Granted(store)
    /\ client' = [client EXCEPT ![c] = [@ EXCEPT
            !.lease = store.next, !.good = Full, !.over = 0,
            !.phase = IF client[c].wants THEN "wait" ELSE "idle"]]
    /\ UNCHANGED <<net, world>>

(* What a process does that may not trust its lease any more: the work under it *)
(* is told to stop, and only when it has ended the lease is given up.           *)
Fallen(c) ==
    IF Works(c) THEN [client[c] EXCEPT !.phase = "fall"]
    ELSE Leaseless(client[c])

(* What an answer changes, be it in time or not. The renewal counts only with    *)
(* the read of the lock that follows it. An index that is smaller than that of  *)
(* the grant is from before it, unless it was asked for under the grant.        *)
Renewed(c, m) ==
    LET keyGone == /\ Holds(c) /\ client[c].phase # "give" /\ Rule("read after renewal")
                   /\ ~m.mine \/ m.idx # client[c].tok
                   /\ m.idx < client[c].tok => Rule("set back") /\ m.under = client[c].tok
        moved == [client[c] EXCEPT !.good = IF Rule("from sending") THEN m.good ELSE Full]
    IN IF m.lease # client[c].lease \/ client[c].phase \in {"fall", "none"} THEN client[c]
       ELSE IF m.stage = "gone" \/ ~Trusted(c) THEN Fallen(c)
       ELSE IF ~keyGone THEN moved
       ELSE IF Works(c) THEN [moved EXCEPT !.phase = "stop"]
       ELSE [Dropped(moved) EXCEPT !.phase = "wait", !.over = client[c].tok]

RenewalAnswered(c, m) ==
    /\ Up(c) /\ m \in Live(c, {"renew"}) /\ m.stage \in {"done", "gone"}
    /\ net' = Without(m)
    /\ client' = [client EXCEPT ![c] = Renewed(c, m)]
    /\ UNCHANGED <<store, world>>

(* Where renewals are not what is looked at, each is answered at once.          *)
Renew(c) ==
    /\ Reaches(c) /\ Trusted(c) /\ client[c].good < Full /\ ~Waits(c, {"renew"})
    /\ IF "slow" \in Faults
       THEN /\ net' = net \cup {Request(c, "renew", 0, NoWord)}
            /\ UNCHANGED <<store, client>>
       ELSE /\ store' = AfterRenewal(store, [lease |-> client[c].lease])
            /\ client' = [client EXCEPT ![c] = Renewed(c, Outcome(Request(c, "renew", 0, NoWord)))]
            /\ UNCHANGED net
    /\ UNCHANGED world

(* The event loop looks at the clock: `stop_at` has come. *)
TimeIsUp(c) ==
    /\ Up(c) /\ client[c].lease # 0 /\ ~Trusted(c) /\ client[c].phase \notin {"fall", "none"}
    /\ client' = [client EXCEPT ![c] = Fallen(c)]
    /\ net' = net \ Live(c, {"renew", "release", "transfer"})
    /\ UNCHANGED <<store, world>>

(* The last of the work has ended. A lease that was lost is revoked, if the     *)
(* request arrives; else it is left to its ttl.                                 *)
HasStopped(c) ==
    /\ Up(c) /\ client[c].phase \in {"stop", "fall"}
    /\ IF client[c].phase = "stop"
       THEN /\ client' = [client EXCEPT ![c] = [Dropped(@) EXCEPT !.phase = "wait", !.over = client[c].tok]]
            /\ store' = store
       ELSE /\ client' = [client EXCEPT ![c] = Leaseless(@)]
            /\ \E arrives \in (IF Reaches(c) THEN {TRUE} ELSE {}) \cup (IF world.calm THEN {} ELSE {FALSE}) :
                store' = IF arrives THEN LeaseEnds(store, client[c].lease) ELSE store
    /\ world' = [world EXCEPT !.hand = @ \ {c}, !.outlaw[c] = 0]
    /\ UNCHANGED net
=============================================================================
