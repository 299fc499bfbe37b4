------------------------------- MODULE Replay -------------------------------
(* A recorded history, step by step: does `Seen` allow each of them? The module *)
(* Recorded has them; tests/chaos/replay.py writes it anew for every history.   *)
(* The checker gets as deep as there are allowed steps, and not further.        *)
EXTENDS Seen, Sequences, TLC, Recorded

VARIABLE at

(* What is allowed only because the lock was taken by hand is said, since it is *)
(* counted apart.                                                               *)
Told(t) ==
    IF Working = {} /\ t > seen.top /\ t >= seen.stood THEN TRUE ELSE PrintT(<<"counted apart", at + 1>>)

Happens(step) ==
    LET c == step.who
        n == step.number
    IN CASE step.does = "starts"   -> Starts(c)
         [] step.does = "begins"   -> Begins(c, n, step.word) /\ Told(n)
         [] step.does = "ends"     -> EndsTerm(c, n, step.word)
         [] step.does = "takes"    -> Takes(c, n)
         [] step.does = "finishes" -> Finishes(c)
         [] step.does = "dies"     -> Die({c})
         [] step.does = "stands"   -> Stands(n)
         [] step.does = "by hand"  -> TakenByHand
         [] step.does = "deaf"     -> AreDeaf(Clients)
         [] step.does = "back"     -> GoesBack

ReplayInit == seen = First(WereUp) /\ at = 0
ReplayNext == at < Len(Steps) /\ at' = at + 1 /\ Happens(Steps[at + 1])
Replayed == ReplayInit /\ [][ReplayNext]_<<seen, at>>
=============================================================================
