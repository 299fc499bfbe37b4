------------------------------ MODULE Handover ------------------------------
(* A leader that steps down asks a contender first, works on until one has      *)
(* answered, ends its work, and only then moves the lock to the heir's lease.   *)
EXTENDS Lock

(* It says that it waits, and what it knew when it began to.                   *)
Announce(c) ==
    /\ Remembers \/ "handover" \in Faults
    /\ Reaches(c) /\ client[c].phase = "wait" /\ Trusted(c) /\ store.standby[c].lease # client[c].lease
    /\ store' = [store EXCEPT !.standby[c] =
            [lease |-> client[c].lease, knows |-> Noted(client[c].knows), at |-> IF Remembers THEN store.idx + 1 ELSE 0,
             answer |-> 0]]
    /\ UNCHANGED <<net, client, world>>

(* Who holds the lock waits no more; the record goes beside the work.          *)
Withdraw(c) ==
    /\ Reaches(c) /\ client[c].phase \notin {"wait", "none"} /\ store.standby[c].lease # 0
    /\ store.standby[c].lease = client[c].lease
    /\ store' = [store EXCEPT !.standby[c] = NoRecord]
    /\ UNCHANGED <<net, client, world>>

(* A person asks for the end of the term that leads now.                       *)
Ask ==
    /\ Fault("ask") /\ world.ask = 0 /\ world.ends < MaxEnds
    /\ \E c \in Clients : client[c].phase = "work" /\ Up(c) /\ Mine(c)
    /\ world' = [world EXCEPT !.ask = store.lock.idx]
    /\ UNCHANGED <<store, net, client>>

(* A request that was made, or a will of its own. Both count as an end: else    *)
(* people could ask for the end of each next term for ever, and a world with    *)
(* requests would have no end itself.                                           *)
StepDown(c) ==
    /\ Reaches(c) /\ client[c].phase = "work" /\ Trusted(c) /\ "handover" \in Faults
    /\ \/ /\ ~world.calm /\ world.ends < MaxEnds
          /\ world' = [world EXCEPT !.ends = @ + 1, !.gone = {d \in Clients : client[d].run = "dead"}]
       \/ /\ world.ask # 0 /\ (Rule("names a term") => world.ask = client[c].tok)
          /\ world' = [world EXCEPT !.ends = @ + 1, !.ask = 0, !.gone = {d \in Clients : client[d].run = "dead"},
                       !.bad = IF world.ask = client[c].tok THEN @ ELSE @ \cup {"ended by a request for another term"}]
    /\ client' = [client EXCEPT ![c].phase = "invite"]
    /\ UNCHANGED <<store, net>>

Invite(c, d) ==
    /\ Reaches(c) /\ client[c].phase = "invite" /\ Trusted(c) /\ d # c /\ Rule("invite first")
    /\ store.standby[d].lease \notin {0, client[c].lease}
    /\ store.invite.lease # client[c].lease \/ store.invite.to # store.standby[d].lease
    /\ store' = [store EXCEPT !.invite = [lease |-> client[c].lease, to |-> store.standby[d].lease, number |-> store.lock.idx]]
    /\ UNCHANGED <<net, client, world>>

(* The number makes an answer to an earlier invitation worthless.              *)
Answer(d) ==
    /\ Reaches(d) /\ client[d].phase = "wait" /\ Trusted(d) /\ store.standby[d].lease = client[d].lease
    /\ store.invite.lease = store.lock.lease /\ store.invite.to = client[d].lease
    /\ store.standby[d].answer # store.invite.number
    /\ store' = [store EXCEPT !.standby[d].answer = store.invite.number]
    /\ UNCHANGED <<net, client, world>>

Willing(c, d) ==
    /\ d # c /\ store.standby[d].lease \notin {0, client[c].lease}
    /\ Rule("invite first") => store.standby[d].answer = client[c].tok /\ store.invite.to = store.standby[d].lease

(* An heir is found, or nobody answers: no new work is taken.                  *)
Drain(c) ==
    /\ Reaches(c) /\ client[c].phase = "invite" /\ Trusted(c)
    /\ \/ \E d \in Clients :
            /\ Willing(c, d)
            /\ client' = [client EXCEPT ![c].phase = "drain", ![c].heir = d, ![c].heirLease = store.standby[d].lease]
       \/ client' = [client EXCEPT ![c].phase = "drain"]
    /\ store' = [store EXCEPT !.invite = IF store.invite.lease = client[c].lease THEN [lease |-> 0, to |-> 0, number |-> 0] ELSE @]
    /\ UNCHANGED <<net, world>>

HasDrained(c) ==
    /\ Up(c) /\ client[c].phase = "drain" /\ Trusted(c)
    /\ client' = [client EXCEPT ![c].phase = "give"]
    /\ UNCHANGED <<store, net, world>>

Transfer(c) ==
    /\ Reaches(c) /\ Trusted(c) /\ client[c].heir # Nobody /\ ~Waits(c, {"release", "transfer"})
    /\ client[c].phase = "give" \/ (client[c].phase = "drain" /\ ~Rule("end first"))
    /\ net' = net \cup {IF HasSettled(c) THEN Request(c, "transfer", client[c].tok, Farewell(c))
                        ELSE Release(c, client[c].tok, Farewell(c))}
    /\ UNCHANGED <<store, client, world>>

(* Refused: the heir has left, so the lock is released.                        *)
TransferAnswered(c, m) ==
    /\ Reaches(c) /\ m \in Live(c, {"transfer"}) /\ m.stage \in {"done", "refused"}
    /\ net' = Without(m)
    /\ client' = [client EXCEPT ![c] = IF m.stage = "done" THEN NotHolding(c)
                                       ELSE [@ EXCEPT !.heir = Nobody, !.heirLease = 0]]
    /\ UNCHANGED <<store, world>>

(* It may arrive yet. The release that follows names the same grant, so it      *)
(* cannot take the lock from the heir.                                          *)
TransferUnanswered(c) ==
    /\ Up(c) /\ Fault("late") /\ world.late < MaxLate
    /\ \E m \in Live(c, {"transfer"}) :
        /\ m.stage = "asked"
        /\ net' = Without(m) \cup {Stray(m)}
        /\ client' = [client EXCEPT ![c].heir = Nobody, ![c].heirLease = 0]
        /\ world' = [world EXCEPT !.late = @ + 1]
    /\ UNCHANGED store
=============================================================================
