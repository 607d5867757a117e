"""What a key, an IV and a ciphertext make of each other: every reading of wire-contract.md (The cipher, in truth).

plaintext weighs what comes out, readings names the settings, trials tries them; foreign and keys know what others do
to a ciphertext and to a key, mistakes tries that; advice says what five languages make of settings.
"""
