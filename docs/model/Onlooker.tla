------------------------------ MODULE Onlooker ------------------------------
(* Somebody looks at the model and notes what can be seen of each step. What is *)
(* noted must be a step that `Seen` allows: so what `Seen` does not allow, the  *)
(* model does not do.                                                           *)
EXTENDS ClusterLock

VARIABLE seen

S == INSTANCE Seen

Deads == {c \in Clients : Up(c) /\ ~Up(c)'}
Starters == {c \in Clients : ~Up(c) /\ Up(c)'}
Beginners == {c \in Clients : ~Works(c) /\ Works(c)'}
Enders == {c \in Clients : Works(c) /\ ~Works(c)'} \ Deads
DeafOnes == world.cut \cup world.blind
Moved == store'.lock.lease # 0 /\ store'.lock.idx # store.lock.idx
WasTaken == world'.byhand # world.byhand /\ world'.quarantine = world.quarantine

The(cs) == CHOOSE c \in cs : TRUE

(* What is seen after the step, with no judgement. Work that has ended in good  *)
(* order is followed by giving the lock back.                                   *)
Note ==
    IF WasTaken THEN S!Taken(seen)
    ELSE IF Deads # {} THEN S!Died(seen, Deads)
    ELSE IF Starters # {} THEN [seen EXCEPT !.up = @ \cup Starters]
    ELSE IF Beginners # {}
         THEN LET c == The(Beginners) IN S!Begun(seen, c, client'[c].tok, client'[c].origin)
    ELSE IF Enders # {}
         THEN LET c == The(Enders) IN S!Ended(seen, c, IF client'[c].phase = "give" THEN "good" ELSE "lost")
    ELSE IF Moved THEN S!Stood(seen, store'.lock.idx)
    ELSE IF DeafOnes # DeafOnes' THEN S!Deafened(seen, DeafOnes')
    ELSE seen

WatchedInit == Init /\ S!Init
Watched == WatchedInit /\ [][Next /\ seen' = Note]_<<vars, seen>>

Allowed == S!Spec
=============================================================================
