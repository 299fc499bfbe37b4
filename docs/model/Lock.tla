-------------------------------- MODULE Lock --------------------------------
(* Waiting for the lock, working under it, giving it back, and finding it under *)
(* one's lease although nobody asked for it.                                    *)
EXTENDS Lease

IsFree(c) == store.lock.lease \in {0, client[c].lease}

(* What contenders say that they knew before they can have heard of this grant. *)
Contenders(c) == {d \in Clients \ {c} : store.standby[d].lease # 0}
Witness(c, tok) == \E d \in Contenders(c) : store.standby[d].knows >= Max(tok, store.standby[d].at)

(* Who could have said that this token is too small: the process itself, the     *)
(* last word under the lock, or a contender.                                    *)
WasTold(c, m) == m.idx <= m.known \/ m.idx <= m.word.knows \/ Witness(c, m.idx)

(* The onlooker writes down each term that begins on a token that is not larger *)
(* than all before it. After a restore only if somebody could have said so.     *)
Began(c, tok, told) ==
    [world EXCEPT !.top = Max(@, tok),
                  !.bad = IF tok <= world.top /\ world.outlaw[c] = 0 /\ (told \/ "restore" \notin Faults)
                          THEN @ \cup {"token went back"} ELSE @]

TooSmall(c, m, origin) ==
    \/ Rule("own tokens") /\ (m.was => Rule("found tokens")) /\ m.idx <= m.known
    \/ Rule("last word") /\ m.idx <= m.word.knows
    \/ Rule("contenders") /\ origin # "given" /\ Witness(c, m.idx)

Release(c, idx, word) == [Request(c, "release", idx, word) EXCEPT !.heir = Nobody, !.heirLease = 0]
Silent(c) == [released |-> FALSE, knows |-> Noted(client[c].knows)]

(* A store that was set back says `released` of a term that is not the last one.*)
HeardOf(m) == Remembers => m.known = m.word.knows

(* What an answer leads to. `rest`: what else is under way.                    *)
Takes(c, m, rest) ==
    LET origin == IF m.was /\ m.given THEN "given" ELSE IF ~m.was /\ m.word.released /\ HeardOf(m) THEN "released" ELSE "free"
        settles == origin = "free" /\ Settle > 0
        taken == [client[c] EXCEPT
             !.tok = m.idx, !.origin = origin, !.over = 0, !.knows = Noted(Max(@, m.idx)), !.again = FALSE,
             !.told = Remembers /\ WasTold(c, m),
             !.phase = IF settles /\ Rule("settle") THEN "settle" ELSE "work", !.wait = IF settles THEN Settle ELSE 0]
        old == Rule("old lease") /\ m.lease # client[c].lease
    IN IF client[c].phase # "wait" \/ ~Trusted(c) \/ old
       THEN /\ net' = rest /\ UNCHANGED <<client, world>>
       ELSE IF Rule("over") /\ m.idx = client[c].over
       \* Its release is under way, and may still arrive.
       THEN /\ net' = rest \cup {Release(c, m.idx, Silent(c))} /\ UNCHANGED <<client, world>>
       ELSE IF Remembers /\ TooSmall(c, m, origin)
       THEN LET word == IF m.idx <= m.word.knows THEN m.word ELSE Silent(c) IN
            /\ net' = rest \cup {Release(c, m.idx, word)}
            /\ IF m.was /\ ~client[c].again
               THEN client' = [client EXCEPT ![c].again = TRUE, ![c].over = m.idx] /\ UNCHANGED world
               ELSE /\ client' = [client EXCEPT ![c].phase = "idle", ![c].wants = FALSE, ![c].over = m.idx]
                    /\ world' = [world EXCEPT !.refused = TRUE]
       ELSE /\ net' = rest
            /\ client' = [client EXCEPT ![c] = taken]
            /\ world' = IF taken.phase = "work" THEN Began(c, m.idx, taken.told) ELSE world

AcquireAnswered(c, m) ==
    /\ Reaches(c) /\ m \in Live(c, {"acquire"}) /\ m.stage = "done"
    /\ Takes(c, m, Without(m))
    /\ store' = store

(* Where slow requests are not what is looked at, each is answered at once.     *)
Acquire(c) ==
    /\ Reaches(c) /\ client[c].phase = "wait" /\ Trusted(c) /\ ~Waits(c, {"acquire", "release"})
    /\ IsFree(c)
    /\ LET m == Request(c, "acquire", 0, NoWord) IN
       IF Faults \cap {"slow", "late", "twice", "leave"} # {}
       THEN /\ net' = net \cup {m}
            /\ UNCHANGED <<store, client, world>>
       ELSE /\ AcquireOutcome(m).stage = "done"
            /\ store' = AfterAcquire(store, m)
            /\ Takes(c, AcquireOutcome(m), net)

BeginWork(c) ==
    /\ Up(c) /\ client[c].phase = "settle" /\ client[c].wait = 0 /\ Trusted(c)
    /\ client' = [client EXCEPT ![c].phase = "work"]
    /\ world' = Began(c, client[c].tok, client[c].told)
    /\ UNCHANGED <<store, net>>

(* Somebody wants the term to end, and there is no hand-over here.             *)
EndWork(c) ==
    /\ Up(c) /\ client[c].phase \in {"work", "settle"} /\ ~world.calm /\ world.ends < MaxEnds
    /\ "handover" \notin Faults
    /\ client' = [client EXCEPT ![c].phase = "give"]
    /\ world' = [world EXCEPT !.ends = @ + 1]
    /\ UNCHANGED <<store, net>>

HasSettled(c) == client[c].origin # "free" \/ client[c].wait = 0 \/ ~Rule("released early")
Farewell(c) == [released |-> HasSettled(c), knows |-> Noted(client[c].knows)]

(* The lock is given away when the work has ended, never before.               *)
GiveBack(c) ==
    /\ Reaches(c) /\ Trusted(c) /\ client[c].heir = Nobody /\ ~Waits(c, {"release", "transfer"})
    /\ client[c].phase = "give" \/ (client[c].phase \in {"work", "drain"} /\ ~Rule("end first") /\ ~world.calm)
    /\ net' = net \cup {Release(c, client[c].tok, Farewell(c))}
    /\ UNCHANGED <<store, client, world>>

NotHolding(c) ==
    IF client[c].phase = "give"
    THEN [Dropped(client[c]) EXCEPT !.phase = "wait", !.over = client[c].tok]
    ELSE client[c]

ReleaseAnswered(c, m) ==
    /\ Reaches(c) /\ m \in Live(c, {"release"}) /\ m.stage = "done"
    /\ net' = Without(m)
    /\ client' = [client EXCEPT ![c] = NotHolding(c)]
    /\ UNCHANGED <<store, world>>

(* No answer to a release. It may arrive yet; the lock may be ours still.      *)
ReleaseUnanswered(c) ==
    /\ Up(c) /\ Fault("late") /\ world.late < MaxLate
    /\ \E m \in Live(c, {"release"}) :
        /\ m.stage = "asked"
        /\ net' = Without(m) \cup {Stray(m)}
        /\ client' = [client EXCEPT ![c] = NotHolding(c)]
        /\ world' = [world EXCEPT !.late = @ + 1]
    /\ UNCHANGED store

(* Its watch tells it what became of its key, also that the store is older than *)
(* its grant.                                                                   *)
Hears(c) == ~Deaf(c) /\ Rule("watch") /\ (LastChange(store) < client[c].tok => Rule("set back"))

(* The watch says that the key is not ours any more. *)
HearsOfLoss(c) ==
    /\ Hears(c) /\ Holds(c) /\ client[c].phase # "give" /\ ~Mine(c)
    /\ client' = [client EXCEPT ![c] = IF Works(c) THEN [@ EXCEPT !.phase = "stop"]
                                       ELSE [Dropped(@) EXCEPT !.phase = "wait", !.over = client[c].tok]]
    /\ UNCHANGED <<store, net, world>>

(* The watch says who has the lock. *)
HearsOfHolder(c) ==
    /\ Remembers /\ Reaches(c) /\ c \notin world.blind /\ client[c].phase \in {"wait", "idle"}
    /\ store.lock.lease \notin {0, client[c].lease} /\ store.lock.idx > client[c].knows
    /\ client' = [client EXCEPT ![c].knows = store.lock.idx]
    /\ UNCHANGED <<store, net, world>>

(* It does not want the lock any more, and goes on with other ones: first its   *)
(* contender record goes.                                                       *)
Leave(c) ==
    /\ Reaches(c) /\ Fault("leave") /\ client[c].phase = "wait" /\ Trusted(c)
    /\ \E d \in Clients \ {c} : Up(d) /\ client[d].wants
    /\ client' = [client EXCEPT ![c].phase = "idle", ![c].wants = FALSE]
    /\ store' = [store EXCEPT !.standby[c] = NoRecord]
    /\ \E arrives \in {FALSE} \cup (IF world.late < MaxLate THEN {TRUE} ELSE {}) :
        LET mine == {m \in Live(c, {"acquire"}) : m.stage = "asked"} IN
        /\ net' = (net \ Live(c, {"acquire"})) \cup (IF arrives THEN {Stray(m) : m \in mine} ELSE {})
        /\ world' = [world EXCEPT !.late = @ + (IF arrives THEN Cardinality(mine) ELSE 0)]

(* After a while it does not follow the key any more: no request can be under   *)
(* way, it believes.                                                            *)
FollowsNoMore(c) ==
    /\ Up(c) /\ client[c].phase = "idle" /\ client[c].follows /\ ~world.calm
    /\ ~Waits(c, {"acquire", "release", "transfer"})
    /\ client' = [client EXCEPT ![c].follows = FALSE]
    /\ UNCHANGED <<store, net, world>>

(* The lock stands under a lease whose owner has no use for it.                *)
Reconcile(c) ==
    /\ Reaches(c) /\ client[c].phase = "idle" /\ Trusted(c) /\ ~Waits(c, {"release"})
    /\ store.lock.lease = client[c].lease
    /\ Rule("late acquire") /\ (client[c].follows \/ Rule("sweep"))
    /\ net' = net \cup {Release(c, store.lock.idx, Silent(c))}
    /\ UNCHANGED <<store, client, world>>
=============================================================================
