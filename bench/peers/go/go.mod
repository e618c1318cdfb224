module winnow-peer

go 1.19
